"""MiniLLM through the engine: a launcher, kill -9, other numbers of processes, refusals.

.venv/bin/python -m pytest tests/pretrain/test_minillm.py
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cluster.processes import Processes
from data_utils.errors import InputError
from data_utils.program import CODE_ROOT
from pretrain import train
from pretrain.checkpoints import OBJECTIVE
from pretrain.flops import forward_flops
from pretrain.objective import load, parse_settings
from pretrain.prepare import prepare
from tests import make, programs
from tests.faults import hooks
from tests.pretrain.runs import (
    BATCH,
    STEPS,
    VARIABLES,
    VOCAB,
    column,
    flags,
    make_base,
    same_run,
)

PROMPT, NEW = 12, 6
OWN = {
    "OBJECTIVE": "minillm",
    "MODEL_PATH": "student",
    "TEACHER_PATH": "teacher",
    "PROMPT_LENGTH": PROMPT,
    "NEW_TOKENS": NEW,
    "ROLLOUTS": 2 * BATCH,
    "INNER_EPOCHS": 3,  # a phase of 6 steps
    "ROLLOUT_BATCH": 3,
    "LR": 1e-3,
    "LR_MIN": 1e-4,
}
FIGURES = "loss lm_loss pg_loss single_step clipped reward weight grad_norm".split()


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The teacher's logits have more rows than the student's."""
    base = make_base(tmp_path_factory.mktemp("base path"))
    make.save_model(base / "student", make.qwen_config(VOCAB), 1, base / "tokenizer")
    make.save_model(base / "teacher", make.qwen_config(VOCAB + 16, 48), 5, base / "tokenizer")
    return base


@pytest.fixture(scope="module")
def whole(base) -> Path:
    """An undisturbed run of the launcher, from another folder."""
    launcher = os.path.relpath(CODE_ROOT / "scripts/minillm/qwen/200M.sh", base)
    done = subprocess.run(
        ["bash", launcher, base],
        cwd=base,
        env={
            k: str(v)
            for k, v in {
                **os.environ,
                "PYTHON": sys.executable,
                **VARIABLES,
                **OWN,
                "SAVE": "whole",
            }.items()
        },
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return base / "whole"


def test_killed_in_a_phase_it_goes_on_bit_for_bit_or_with_other_numbers_of_processes(base, whole):
    words = flags(**OWN, SAVE="killed")
    killed = hooks.start(base, words, "step: the update", 10).wait()
    assert killed.code == -signal.SIGKILL
    shutil.copytree(base / "killed", base / "others")
    again = hooks.start(base, words).wait()
    assert again.code == 0 and "after step 4" in again.output, again.errors
    same_run(base / "killed", whole)
    for name in FIGURES:
        assert column(base / "killed", name) == column(whole, name)
    two = ["cluster.launch", "--nproc", 2, "pretrain/train.py"]
    for program, stop in ((two, 9), (["pretrain.train"], 0)):  # the second phase begins in step 7
        run = programs.call(base, *program, base, *flags(**OWN, SAVE="others", STOP_STEP=stop))
        assert run.code == 0 and "resuming after" in run.output, run.errors
    for name in FIGURES:
        found, expected = column(base / "others", name), column(whole, name)
        assert len(found) == STEPS and np.allclose(found, expected, rtol=1e-5, atol=1e-5), name


def test_figures_and_the_phases(whole):
    figures = {name: np.array(column(whole, name)) for name in FIGURES}
    total = figures["lm_loss"] + figures["pg_loss"] + figures["single_step"]
    assert np.allclose(figures["loss"], total, atol=1e-5)
    reward = figures["reward"]  # of a batch: two batches in turn for six steps, then others
    assert np.array_equal(reward[:6], np.tile(reward[:2], 3)) and len(set(reward)) == 4
    assert (figures["weight"] > 0.8).all() and (figures["weight"] <= 1.25).all()
    state = load_file(whole / f"step_{STEPS:06d}" / OBJECTIVE)
    assert int(state["first"]) == 6 * BATCH
    assert state["tokens"].shape == (2 * BATCH, PROMPT + NEW)


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    """make(words) -> the objective in this process, which is the only one of its group."""
    from torch import distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)

    def make_objective(**more):
        words = [str(word) for word in (base, *flags(**{**OWN, "SAVE": "alone", **more}))]
        run = prepare(parse_settings(words), Processes(0, 1, torch.device("cpu")))
        return load("minillm")(train.make_student(run), run)

    yield make_objective
    dist.destroy_process_group()


def step_of(objective, step=1):
    from pretrain.batches import read_step

    context = objective.context
    batch = read_step(context, objective.columns, VOCAB, step)
    return objective.begin_step(step, batch)


def gradient(objective, batch) -> torch.Tensor:
    """Of a step, as the engine sums it up."""
    parameters = list(objective.student.parameters())
    for number in range(objective.context.plan.accumulation):
        loss, _ = objective.loss({name: values[number] for name, values in batch.items()})
        (loss / objective.context.plan.parts).backward()
    found = torch.cat([p.grad.flatten() for p in parameters])
    objective.student.zero_grad()
    return found


@pytest.mark.parametrize("original", [False, True])
def test_micro_batches_do_not_matter_and_the_teacher_gets_no_gradient(alone, original):
    made = [alone(MICRO_BATCH=m, MINILLM_ORIGINAL=original) for m in (4, 2, 1)]
    found = [gradient(objective, step_of(objective)) for objective in made]
    assert found[0].norm() > 0.01
    for other in found[1:]:
        assert torch.allclose(other, found[0], atol=1e-6)
    assert all(p.grad is None for p in made[0].teacher.parameters())
    figures = made[0].loss({n: v[0] for n, v in step_of(made[0]).items()})[1]
    assert ("kd_loss" in figures) == original


def test_a_student_that_is_the_teacher_gets_the_gradient_of_its_rows_alone(alone):
    objective = alone(TEACHER_PATH="student", PRECISION="fp32")
    batch = step_of(objective)
    assert batch["rollout_reward"].abs().max() == 0
    loss, figures = objective.loss({name: values[0] for name, values in batch.items()})
    assert abs(float(figures["single_step"])) < 1e-6 and float(figures["pg_loss"]) == 0
    both = gradient(objective, batch)
    objective.policy_loss = lambda micro: (0.0, {})
    assert torch.allclose(gradient(objective, batch), both, atol=1e-6)


def test_flops_are_those_of_sampling_scoring_and_training(base, alone):
    objective = alone()
    length = PROMPT + NEW
    student, teacher = (
        forward_flops(model, length) * length * BATCH
        for model in (objective.student, objective.teacher)
    )
    rows = 3 * forward_flops(objective.student, 20) * 20 * BATCH
    found = objective.student_flops(20 * BATCH, 20), objective.teacher_flops(20 * BATCH, 20)
    assert found == pytest.approx((rows + 3 * student + 2 * student / 3, teacher + 2 * teacher / 3))


def test_mistakes_are_found_before_any_process_starts(base):
    def refused(**more):
        with pytest.raises(InputError) as caught:
            words = (base, *flags(**{**OWN, "SAVE": "x", **more}))
            train.check([str(word) for word in words], 1)
        return str(caught.value)

    assert "MODEL_PATH" in refused(MODEL_PATH="")
    assert "nowhere" in refused(TEACHER_PATH="nowhere")
    assert "PROMPT_LENGTH" in refused(PROMPT_LENGTH=40)
    assert "--rollouts" in refused(ROLLOUTS=BATCH + 1)
    assert "--teacher-mix" in refused(TEACHER_MIX=1)
    assert "--inner-epochs" in refused(INNER_EPOCHS=0)
    assert "positions" in refused(NEW_TOKENS=100_000)
    shutil.copytree(base / "student", base / "mamba")
    config = {"model_type": "mamba", "vocab_size": VOCAB, "hidden_size": 32}
    (base / "mamba/config.json").write_text(json.dumps(config))
    assert "cache" in refused(MODEL_PATH="mamba")
