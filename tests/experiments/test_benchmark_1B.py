"""scripts/experiments/benchmark_1B.sh: the plan's figures, the stages, and all of it in miniature.

.venv/bin/python -m pytest [-m long] tests/experiments/test_benchmark_1B.py
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.program import CODE_ROOT
from eval.harness_tasks import NINE
from experiments.benchmark_1B import plan, ready
from tests import make
from tests.eval import harness_data, harness_world
from tests.pipeline.test_quickstart import SAY

SCRIPT = "scripts/experiments/benchmark_1B.sh"
# Parameters without an input embedding of its own; layers x hidden.
WEIGHTS = {"1.8B": 1_836_828_672 - 151_936 * 2048, "104M_ref": 103_502_336, "200M": 203_437_824}
WIDTHS = {"1.8B": 24 * 2048, "104M_ref": 8 * 512, "200M": 12 * 768}


def forward(model: str, length: int) -> float:
    """FLOPs per token: two per weight; four per position looked at, half of the row on average."""
    return 2 * WEIGHTS[model] + 4 * WIDTHS[model] * length / 2


@pytest.fixture(scope="module")
def models() -> plan.Models:
    return plan.outlines(plan.Settings())


def test_the_plan_equals_sums_by_hand(models):
    found = {stage.name: stage for stage in plan.stages(plan.Settings(), models)}
    teacher = found["score with the teacher and store it"]
    assert teacher.tokens == 2_050_000_000 and teacher.disk == 37 * 2.05e9
    assert teacher.flops == pytest.approx(forward("1.8B", 1025) * 2.05e9, rel=1e-12)
    assert teacher.flops == pytest.approx(
        6.46e18, rel=1e-3
    )  # 3.15e20 for 100 B, in the paper's way
    reference = found["score with the reference"].flops
    assert reference == pytest.approx(forward("104M_ref", 1025) * 2.05e9, rel=1e-12)
    tokens = 7812 * 128 * 1024
    trained = 3 * forward("104M_ref", 1024) * tokens
    assert found["train the reference"].flops == pytest.approx(trained, rel=1e-12)
    student = 3 * forward("200M", 1024) * tokens
    with_losses = 3 * (student + 32 * 2048 * 1024 * forward("200M", 1024))
    miniplm = found["MiniPLM: train for 7,812 steps, 3 times"]
    assert miniplm.flops == pytest.approx(with_losses, rel=1e-12)
    assert miniplm.tokens == 3 * tokens and miniplm.disk == 3 * 22 * WEIGHTS["200M"]
    # The longer control: MiniPLM's student and all that it needed, and 5 % more.
    steps = plan.long_steps(plan.Settings(), models)
    needed = student + teacher.flops + reference + trained
    assert steps == int(1.05 * needed / (student / 7812)) + 1
    assert f"plain at MiniPLM's FLOPs: train for {steps:,} steps" in found


def test_hours_are_flops_over_the_assumed_speed():
    stages = [
        plan.Stage("a", 10, 7.2e17, 5e9),
        plan.Stage("b", 1, 3.6e17),
        plan.Stage("c", disk=1e9),
    ]
    *rows, total = plan.rows_of(stages, tflops=100)
    assert [row["hours"] for row in rows[:2]] == pytest.approx([2, 1]) and total["hours"] == 3
    assert total["disk"] == 6 and total["tokens"] == 11 and np.isnan(rows[2]["hours"])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"long_steps": 0}, {"held-out loss, 12 times"}),
        ({"seeds": 1, "long_steps": 9}, {"held-out loss, 5 times", "plain at MiniPLM's FLOPs: train"
          " for 9 steps"}),
        ({"reference": "download"}, {"reference, downloaded"}),
    ],
)  # fmt: skip
def test_the_plan_follows_the_settings(changes, names, models):
    found = {stage.name for stage in plan.stages(plan.Settings(**changes), models)}
    assert names <= found


def test_a_downloaded_reference_leaves_fewer_flops_to_match(models):
    trained, downloaded = (
        plan.long_steps(plan.Settings(reference=where), models) for where in ("train", "download")
    )
    steps = 1.05 * 7812 * forward("104M_ref", 1024) / forward("200M", 1024)
    assert trained - downloaded == pytest.approx(steps, abs=1)


def test_memory_is_what_was_counted(models):
    """benchmarks/memory_of_a_step.py: 5,475,512,532 bytes with one row, 480,428,128 a row more."""
    one, sixteen = (plan.memory(plan.Settings(micro_batch=n), models)[0] for n in (1, 16))
    assert one == pytest.approx(5_475_512_532, rel=0.005)
    assert (sixteen - one) / 15 == pytest.approx(7_686_850_052 / 16, rel=0.005)
    assert sixteen < 24e9


def script(place: Path, *words: object, **variables: object) -> subprocess.CompletedProcess:
    """The script of a copy of the code's scripts (or of the code itself)."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": CODE_ROOT / ".venv/bin/python", **variables}
    return subprocess.run(
        ["bash", place / SCRIPT, *words],
        env={name: str(value) for name, value in environment.items()},
        capture_output=True,
        encoding="utf-8",
    )


def test_the_plan_starts_nothing(tmp_path):
    done = script(CODE_ROOT, tmp_path / "never made", PLAN="true", TFLOPS=120, TEACHER="0.5B")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "never made").exists()
    assert "assume 120 TFLOP/s" in done.stdout and "Nobody measured it" in done.stdout
    flops = 2 * 463_987_712 + 2 * 24 * 1024 * 1025  # the 0.5B's, per token
    line = next(x for x in done.stdout.splitlines() if x.startswith("score with the teacher"))
    assert f"{flops * 2.05e9:.2e}" in line and f"{flops * 2.05e9 / 120e12 / 3600:.1f}" in line


@pytest.mark.parametrize("variables", [{"SCALE": "huge"}, {"TEACHER": "4B"}])
def test_wrong_variables_are_refused(variables, tmp_path):
    done = script(CODE_ROOT, tmp_path / "never made", **variables)
    assert done.returncode == 2 and done.stderr.startswith("ERROR ") and "Fix: " in done.stderr
    assert not (tmp_path / "never made").exists()


def stages(tmp_path: Path, **variables: object) -> list[tuple[str, str]]:
    """(artefact, command) of each stage, by a stand-in for scripts/stages.sh; counts are right."""
    shutil.copytree(CODE_ROOT / "scripts", tmp_path / "scripts", dirs_exist_ok=True)
    say = 'export PYTHON="$SAYING" "${settings[@]}"'
    (tmp_path / "scripts/stages.sh").write_text(
        re.sub(r"prepare\(\) .*", f"prepare() {{ {say}; }}", SAY)
    )
    saying = tmp_path / "python"  # answers the one question of the script, for long steps
    saying.write_text('#!/bin/sh\ncase "$*" in *only*) echo "$LONG";; esac\n')
    saying.chmod(0o755)
    done = script(tmp_path, tmp_path / "base", SAYING=saying, **{"LONG": 55, **variables})
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^STAGE (\d+)/(\d+) (\S+) : (.*)$", done.stdout, re.MULTILINE)
    numbers = [(int(n), int(total)) for n, total, *_ in found]
    assert numbers == [(n + 1, len(found)) for n in range(len(found))]
    for program in re.findall(rf"{tmp_path}/((?:scripts|tools)/\S+\.(?:sh|py))", done.stdout):
        assert (CODE_ROOT / program).exists(), program
    return [(artefact, command) for *_, artefact, command in found]


def test_the_stages_and_what_they_need(tmp_path):
    found = dict(stages(tmp_path))
    assert len(found) == 11 + 3 * 9 + 2 + 1
    better = "pile-diff_samp-qwen_1.8B-qwen_104M-r0.5/qwen-1025"
    assert f"processed_data/pretrain/{better}" in found
    for seed in (1, 2, 3):
        plain, kd = (found[f"results/students/{name}-{seed}"] for name in ("plain", "vanilla_kd"))
        half = f"DATA_DIR=processed_data/pretrain/pile-random-{seed}/qwen-1025"
        assert half in plain and half in kd and f"SEED={seed} " in kd
        assert "TEACHER_CACHE=results/kd_cache/pile/qwen-1025/qwen_1.8B" in kd
        refined = found[f"results/students/miniplm-{seed}"]
        assert "DATA_DIR" not in refined and "miniplm/pretraining/qwen/200M.sh" in refined
    assert "TOTAL_STEPS=55" in found["results/students/plain_long"]
    small = dict(stages(tmp_path, TEACHER="0.5B", LONG=0, SEEDS=4, REFERENCE="download"))
    assert len(small) == 11 + 9 + 1 and "results/students/plain_long" not in small
    assert small["checkpoints/qwen/0.5B"].endswith(" teacher-0.5B")
    assert small["checkpoints/qwen/104M_ref"].endswith(" ref")
    assert "results/kd_cache/pile/qwen-1025/qwen_0.5B" in small


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A BASE_PATH, copies of text and teacher, and the data sets of the nine tasks."""
    world = tmp_path_factory.mktemp("a world")
    make.write_text(world / "text", make.documents(60))
    make.write_text(world / "base/data/dclm", make.documents(12, seed=1), ("DCLM",))
    tokenizer = make.train_tokenizer(world / "tokenizer", make.documents(50))
    make.save_model(world / "teacher", make.qwen_config(600, hidden=64), 1, tokenizer)
    harness_data.save_story_cloze(world / "story cloze")
    harness_world.prefetch(world)
    return world


def test_what_is_missing_is_said_before_anything_is_done(world, tmp_path):
    (tmp_path / "base").mkdir()
    program = "experiments/benchmark_1B/ready.py"
    empty = {"HF_HOME": tmp_path / "hf", "STORYCLOZE_DIR": ""}
    done = make.run(program, tmp_path / "base", check=False, **empty)
    text, tasks = done.stderr.splitlines()
    assert done.returncode == 2 and "no held-out text" in text and "data/dclm" in text
    assert all(name in tasks for name in NINE if "storycloze" not in name)
    assert "--prefetch" in tasks and "storycloze_2018 is left out" in done.stdout
    data = {"HF_HOME": world / "hf", "STORYCLOZE_DIR": world / "story cloze"}
    assert "are here" in make.run(program, world / "base", **data).stdout


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_of_it_in_miniature(world):
    base, data = world / "base", {"HF_HOME": world / "hf", "STORYCLOZE_DIR": world / "story cloze"}
    data |= {"TEXT_FROM": world / "text", "TEACHER_FROM": world / "teacher"}
    run = make.run(SCRIPT, base, SCALE="tiny", SEEDS="1 2", **data)
    refined = "pile-diff_samp-qwen_1.8B-qwen_104M-r0.5/qwen-65"
    assert len(Corpus(base / "processed_data/pretrain" / refined)) == 64
    students = [
        f"{m}-{s}" for s in (1, 2) for m in ("plain", "vanilla_kd", "miniplm", "miniplm_kd")
    ]
    manifests = {
        name: artefact.require(base / "results/students" / name, "model", "", contents=True)
        for name in [*students, "plain_long"]
    }
    for name in students:
        assert manifests[name].counts["step"] == 8
        result = json.loads((base / f"results/eval/harness/zero_shot-{name}.json").read_text())
        assert result["average"]["tasks"] == 9
        assert result["tasks"]["piqa"]["calibration_error"] is not None
    assert "teacher_cache" in manifests["miniplm_kd-1"].inputs
    page = (base / "report.html").read_text()
    for words in ("Over seeds", "At equal FLOPs", "miniplm-1, miniplm-2", "Zero-shot tasks"):
        assert words in page and words in run.stdout, words
    again = make.run(SCRIPT, base, SCALE="tiny", SEEDS="1 2", **data)
    total = 11 + 2 * 9 + 2 + 1
    assert again.stdout.count("\ndone: ") == total and f"[{total}/{total}]" in again.stdout


def test_held_out_text_is_looked_for_where_the_launcher_reads_it():
    launcher = (CODE_ROOT / "scripts/tools/process_data/dclm_qwen.sh").read_text()
    assert "data/dclm" in launcher and "data/dclm" in Path(ready.__file__).read_text()
