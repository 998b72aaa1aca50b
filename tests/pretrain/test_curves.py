"""The learning curve of 200 steps against a loop of plain PyTorch, several epochs long.

Loss (before the step's update) and gradient norm (before clipping) of every step are compared, and
the weights at the end. Both sides: fp32, AdamW, the same initial weights, rows and schedule.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, get_scheduler

from data_utils.corpus import Corpus
from pretrain.metrics import read_metrics
from tests.pretrain import runs
from tests.pretrain.runs import BATCH, EOS

ROWS, STEPS, WARMUP, LR, LR_MIN, CLIP = 150, 200, 20, 3e-3, 3e-4, 1.5


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return runs.make_base(tmp_path_factory.mktemp("base path"), rows=ROWS, longest=25)


@pytest.fixture(scope="module")
def plain(base) -> tuple[list[float], list[float], dict]:
    """Losses, gradient norms and final weights: a row at a time, no padding, full logits."""
    corpus = Corpus(base / "corpus")
    torch.manual_seed(10)
    config = AutoConfig.for_model(**json.loads((base / "model.json").read_text()))
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LR, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01
    )
    scheduler = get_scheduler("cosine_with_min_lr", optimizer, WARMUP, STEPS, {"min_lr": LR_MIN})
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = 0.0
        for row in (np.arange(BATCH) + step * BATCH) % ROWS:
            ids = torch.tensor(corpus.row(row).astype(np.int64))
            counted = ids[:-1] != EOS
            if counted.any():
                logits = model(ids[None, :-1]).logits[0]
                part = cross_entropy(logits[counted], ids[1:][counted]) / BATCH
                part.backward()
                loss += float(part.detach())
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        optimizer.step()
        scheduler.step()
        losses.append(loss)
    return losses, norms, model.state_dict()


@pytest.mark.parametrize("processes", [1, 2])
def test_200_steps_equal_those_of_a_plain_loop(base, plain, processes):
    save = f"run of {processes}"
    schedule = {"LR": LR, "LR_MIN": LR_MIN, "WARMUP_STEPS": WARMUP, "TOTAL_STEPS": STEPS}
    seldom = {"SAVE_EVERY": STEPS, "VALID_EVERY": STEPS}
    run = runs.call(base, runs.flags(SAVE=save, CLIP=CLIP, **schedule, **seldom), processes)
    assert run.code == 0, run.errors
    rows = read_metrics(base / save)
    losses, norms, weights = plain
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == pytest.approx(losses, abs=1e-4)
    assert [row["grad_norm"] for row in rows] == pytest.approx(norms, rel=1e-3)
    model = AutoModelForCausalLM.from_pretrained(base / save).state_dict()
    for name, expected in weights.items():
        torch.testing.assert_close(model[name], expected, rtol=0, atol=2e-4)


def test_the_curve_is_one_of_learning(plain):
    """Else equality would say little: it falls, over several epochs, and only some is clipped."""
    losses, norms, _ = plain
    assert STEPS * BATCH > 5 * ROWS
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 1.5
    assert 20 < sum(norm > CLIP for norm in norms) < STEPS - 20
