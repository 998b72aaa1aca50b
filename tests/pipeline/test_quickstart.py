"""scripts/quickstart.sh: its stages are as many as it announces, each a launcher that is there.

.venv/bin/python -m pytest tests/pipeline/test_quickstart.py
"""

import os
import re
import shutil
import subprocess

import pytest

from data_utils.program import CODE_ROOT

# In place of scripts/stages.sh: says what each stage would do.
SAY = """
number=0
prepare() { export PYTHON=echo TEACHER_NAME=smollm2_135M REF_NAME=llama_5M; }
stage() {
  number=$((number + 1))
  echo "STAGE $number/$TOTAL $2 : ${*:3}"
}
"""


def stages(tmp_path, *words: str, path: str = os.environ["PATH"]) -> list[tuple[str, str]]:
    """(artefact, command) of each stage of a quickstart with these words."""
    shutil.copytree(CODE_ROOT / "scripts", tmp_path / "scripts", dirs_exist_ok=True)
    (tmp_path / "scripts/stages.sh").write_text(SAY)
    done = subprocess.run(
        ["bash", tmp_path / "scripts/quickstart.sh", *words, tmp_path / "base"],
        env={"PATH": path},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^STAGE (\d+)/(\d+) (\S+) : (.*)$", done.stdout, re.MULTILINE)
    assert [(int(n), int(total)) for n, total, *_ in found] == [
        (n + 1, len(found)) for n in range(len(found))
    ]
    for launcher in re.findall(rf"{tmp_path}/(scripts/\S+\.sh)", done.stdout):
        assert (CODE_ROOT / launcher).exists(), launcher
    return [(artefact, command) for *_, artefact, command in found]


@pytest.fixture
def without_npm(tmp_path) -> str:
    """A folder of programs that has no npm."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "mkdir"):
        (folder / name).symlink_to(shutil.which(name))
    return str(folder)


def test_the_stages_are_as_many_as_announced(tmp_path, without_npm):
    plain = stages(tmp_path)
    assert len(plain) == 21
    everything = stages(tmp_path, "--all")
    assert set(plain) < set(everything)  # what is done in one is done in the other
    without = stages(tmp_path, "--all", path=without_npm)
    assert len(without) == 37
    if shutil.which("npm"):
        assert len(everything) == 47 and set(without) < set(everything)
    made = [artefact for artefact, _ in everything]
    assert len(set(made)) == len(made)
