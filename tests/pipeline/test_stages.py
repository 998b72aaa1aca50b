"""scripts/stages.sh: what is done is skipped, what changed or failed is not.

.venv/bin/python -m pytest tests/pipeline/test_stages.py
"""

import shlex
import subprocess

import pytest

from data_utils.program import CODE_ROOT

TOUCH = 'stage "Make it" a.json touch "$BASE/a.json"'


@pytest.fixture
def stages(tmp_path):
    """Runs lines of bash behind the stages' file; returns (exit code, output)."""
    base = tmp_path / "base path"
    base.mkdir()

    def run(lines: str, total: int = 1) -> tuple[int, str]:
        script = (
            f"set -euo pipefail\nsource {shlex.quote(str(CODE_ROOT))}/scripts/stages.sh\n{lines}"
        )
        done = subprocess.run(
            ["bash", "-c", script],
            env={"PATH": "/usr/bin:/bin", "BASE": str(base), "TOTAL": str(total)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout

    run.base = base
    return run


def test_a_stage_is_run_once(stages):
    code, first = stages(TOUCH)
    assert code == 0 and "[1/1] Make it" in first and "$ touch" in first
    assert stages(TOUCH) == (0, "\n[1/1] Make it\ndone: a.json\n")
    assert (stages.base / "stages.tsv").read_text().count("\n") == 1


def test_another_command_or_a_lost_artefact_runs_it_again(stages):
    stages(TOUCH)
    assert "$ touch" in stages(TOUCH.replace("touch", "touch -a"))[1]
    assert "done" in stages(TOUCH.replace("touch", "touch -a"))[1]
    (stages.base / "a.json").unlink()
    assert "$ touch" in stages(TOUCH.replace("touch", "touch -a"))[1]
    assert (stages.base / "stages.tsv").read_text().count("\n") == 1


def test_a_folder_counts_when_it_has_its_manifest(stages):
    folder = 'stage "Folder" folder mkdir -p "$BASE/folder"'
    stages(folder)
    assert "$ mkdir" in stages(folder)[1]
    (stages.base / "folder/manifest.json").touch()
    assert "done: folder" in stages(folder)[1]


def test_a_failed_stage_ends_the_script_and_is_run_again(stages):
    code, output = stages(f'stage "Fail" a.json false\n{TOUCH}', total=2)
    assert code == 1 and "[2/2]" not in output
    assert (stages.base / "stages.tsv").read_text() == ""


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [("true", "true", 0), ("true", "exit 3", 3), ("exit 2", "true", 2)],
)
def test_together_fails_if_one_of_both_does(stages, first, second, code):
    wait = 'for i in {1..50}; do [[ -f "$BASE/$0" ]] && break; sleep 0.1; done; [[ -f "$BASE/$0" ]]'
    # Each waits for what the other makes, so both must run at once.
    lines = f"""
    together bash -c 'touch "$BASE/one"; {wait}; {first}' two -- \\
      bash -c 'touch "$BASE/two"; {wait}; {second}' one"""
    assert stages(lines)[0] == code


def test_together_gives_a_thread_to_each(stages):
    code, output = stages("together printenv OMP_NUM_THREADS -- printenv OMP_NUM_THREADS")
    assert (code, output) == (0, "1\n1\n")
