"""scripts/eval/scaling_law.sh on runs whose held-out losses follow known laws."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_utils.artefact_writer import Output
from data_utils.errors import InputError
from eval import scaling_law
from tests import make

EACH = {"qwen/200M": 1.26e9, "qwen/500M": 3.14e9, "qwen/1.2B": 7.30e9}  # FLOPs per token
PARAMETERS = {"qwen/200M": 203e6, "qwen/500M": 464e6, "qwen/1.2B": 1160e6}


def save_run(
    base: Path, method: str, size: str, law, teacher: float = 0.0, steps: int = 20
) -> None:
    """A finished run whose held-out loss is law(FLOPs); its first one is of the warm-up."""
    folder, each = base / "results" / method / size, EACH[size]
    settings = {"valid_data": "held out"}
    content = {"warmup_steps": 2}
    output = Output(folder, "model", "tests", content, settings).begin()
    rows = [
        {"step": 0, "loss": 9.0, "tokens": 1},
        {"step": 1, "loss": 9, "valid_loss": 99.0, "tokens": 9},
    ]
    for step in range(2, steps + 2):
        tokens = int(1e9 * 1.25 ** (step - 2))
        cost = (each + teacher) * tokens
        rows.append({"step": step, "loss": 9.0, "valid_loss": law(cost), "tokens": tokens})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines)
    counts = {"tokens": tokens, "parameters": PARAMETERS[size]}
    counts |= {"student_flops": each * tokens, "teacher_flops": teacher * tokens}
    output.finish(["metrics.jsonl"], counts)


def plain(cost: float) -> float:
    return 2.19e7 * cost**-0.41 + 3.30


def better(cost: float) -> float:
    """Any loss with a third of the compute."""
    return plain(3 * cost)


def test_the_launcher_finds_the_laws_and_what_is_saved(tmp_path):
    base = tmp_path / "a base"
    save_run(base, "pretrain", "qwen/200M", plain)
    save_run(base, "miniplm", "qwen/200M", better)
    save_run(base, "vanilla_kd", "qwen/200M", plain, teacher=2e9)
    done = make.run("scripts/eval/scaling_law.sh", base)
    found = json.loads((base / "results/eval/scaling_law.json").read_text())
    curves = {row["method"]: row for row in found["curves"]}
    assert curves["pretrain"]["points"] == 20
    assert curves["pretrain"]["L_1T"] == pytest.approx(plain(1.26e21), abs=1e-3)
    assert curves["vanilla_kd"]["alpha"] == pytest.approx(0.41, abs=0.01)
    factors = {row["method"]: row["factor"] for row in found["savings"]}
    assert factors == pytest.approx({"miniplm": 3, "vanilla_kd": 1}, rel=0.02)
    assert "2.19e+07" in done.stdout and "the paper: miniplm" in done.stdout
    assert (base / "results/eval/scaling_law.png").read_bytes().startswith(b"\x89PNG")
    assert "does not hold" not in done.stdout and "nan" not in done.stdout


def test_three_sizes_give_the_second_law(tmp_path):
    for size in EACH:
        n, each = PARAMETERS[size], EACH[size]
        save_run(
            tmp_path,
            "pretrain",
            size,
            lambda cost, n=n, each=each: 1.69 + 406.4 * n**-0.34 + 410.7 * (cost / each) ** -0.28,
        )
    folders = ",".join(f"results/pretrain/{size}" for size in EACH)
    make.run("eval/scaling_law.py", tmp_path, "--runs", folders)
    found = json.loads((tmp_path / "results/eval/scaling_law.json").read_text())
    (law,) = found["over_sizes"]
    assert law["b"] == pytest.approx(0.28, abs=0.01)
    loss = law["E"] + law["A"] * 700e6 ** -law["a"] + law["B"] * 2e10 ** -law["b"]
    assert loss == pytest.approx(1.69 + 406.4 * 700e6**-0.34 + 410.7 * 2e10**-0.28, abs=5e-3)


def test_a_loss_that_is_out_of_reach():
    cost = 1e20
    worse, control = np.array([[3.5, 2e7, 0.4]]), np.array([[3.0, 2e7, 0.4]])
    assert scaling_law.ratio(worse, control, cost) == 0
    assert scaling_law.ratio(control, control, cost) == pytest.approx(1)


def test_runs_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(InputError, match="no run has held-out losses"):
        scaling_law.run_folders(tmp_path, "")
    save_run(tmp_path, "pretrain", "qwen/200M", plain)
    folder = tmp_path / "results/pretrain/qwen/200M"
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"FLOPs.*VALID_DATA"):
        scaling_law.read_points(folder, 0)


def test_few_points_are_said_to_be_few(tmp_path):
    save_run(tmp_path, "pretrain", "qwen/200M", plain, steps=4)
    done = make.run("scripts/eval/scaling_law.sh", tmp_path)
    assert "five points or more are needed" in done.stdout
