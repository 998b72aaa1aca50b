"""Gradients that are no numbers: fp16's overflows, and what stops in every precision.

FACTS 3: an overflow skips the update, not the step; the first 3 use up the hysteresis, each later
one halves the scale until it next grows; at scale 1 it stops.
"""

import json
from pathlib import Path

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import CreateLossScaler
from safetensors.torch import load_file, save_file

from data_utils import artefact
from pretrain.metrics import read_metrics
from pretrain.schedule import learning_rate
from tests import make, programs
from tests.pretrain.dynamic_scale import ARGUMENTS
from tests.pretrain.runs import RARE, RARE_RUN, VOCAB, call, make_rare_base


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    base = make_rare_base(tmp_path_factory.mktemp("base path"))
    config = {**make.qwen_config(VOCAB), "tie_word_embeddings": False}
    weights = load_file(
        make.save_model(base / "model", config, 0, base / "tokenizer") / "model.safetensors"
    )
    make.save_model(base / "steep", config, 0, base / "tokenizer")
    save_file(steep(weights), base / "steep/model.safetensors", metadata={"format": "pt"})
    return base


def steep(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model with a finite loss whose gradient's norm is infinite where RARE is the input.

    Channel 0 of the residual stream is 0 but for RARE; the final norm makes it 1e30, the head takes
    it times 0: the head's gradient is about 1e30, its square beyond fp32 and bf16.
    """
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight[0] = 0
    weights["model.embed_tokens.weight"][:RARE, 0] = 0
    weights["model.norm.weight"][0] = 1e30
    weights["lm_head.weight"][:, 0] = 0
    return weights


def flags(save: str, **changes: object) -> list[object]:
    settings = {"MODEL_PATH": "model", "SAVE": save, "TOTAL_STEPS": 40}
    return programs.flags({**RARE_RUN, **settings, **changes})


def train(base: Path, save: str, overflows: str, **changes: object) -> programs.Program:
    """A run whose steps `overflows` overflow."""
    words = flags(save, **changes)
    return programs.call(base, "tests.pretrain.dynamic_scale", base, *words, OVERFLOWS=overflows)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in other)


def test_deepspeeds_scaler_with_our_numbers():
    """Hysteresis, halving, growth after 2,000 good steps (which refills it), the end at 1."""
    scaler = CreateLossScaler(torch.half, 0, True, ARGUMENTS)
    scales = []

    def steps(count: int, overflow: bool) -> None:
        for _ in range(count):
            scaler.update_scale(overflow)
            scales.append(scaler.cur_scale)

    logging_off = "deepspeed.runtime.fp16.loss_scaler.dist.get_rank"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging_off, lambda: 1)  # rank 0 logs
        steps(3, True)
        steps(10, False)
        steps(2, True)
        assert set(scales[:13]) == {2048} and scales[13:] == [1024, 512]
        steps(2000, False)
        assert scales[-2:] == [512, 512]
        steps(1, False)
        assert scales[-1] == 1024
        steps(3, True)
        assert scales[-1] == 1024
        steps(10, True)
        assert scales[-1] == 1
        with pytest.raises(Exception, match="loss scale already at minimum"):
            steps(1, True)


@pytest.fixture(scope="module")
def exhausted(base) -> tuple[programs.Program, Path]:
    """Two good steps, then overflows until it stops; checkpoints each fifth step."""
    run = train(base, "exhausted", "3-40", save_every=5, keep_last=9)
    return run, base / "exhausted"


def test_overflows_skip_the_update_and_count_the_step(exhausted):
    rows = read_metrics(exhausted[1])
    assert [row["step"] for row in rows] == list(range(1, 17))
    scales = [2048.0] * 5 + [2048.0 / 2**n for n in range(1, 12)]
    assert [row["loss_scale"] for row in rows] == scales
    assert [row["skipped"] for row in rows] == [0, 0, *range(1, 15)]
    assert [row["sequences"] for row in rows] == [4 * step for step in range(1, 17)]
    lr = [learning_rate(step, 6e-4, 6e-5, 1, 40) for step in range(16)]
    assert [row["lr"] for row in rows] == lr
    assert all((row["grad_norm"] is None) == (row["step"] > 2) for row in rows)
    text = (exhausted[1] / "metrics.jsonl").read_text()
    assert "Infinity" not in text and "NaN" not in text  # neither is JSON
    early, late = (weights_of(exhausted[1] / f"step_{n:06d}") for n in (5, 15))
    assert same(early, late) and not same(early, weights_of(exhausted[1].parent / "model"))


def test_the_lowest_scale_stops_before_the_update(exhausted):
    run, folder = exhausted
    what = "in step 17 the fp16 gradients overflow at the lowest loss scale (1)"
    programs.one_message(run, 2, what, "SKIP_STEPS=17", "PRECISION=bf16 or fp32")
    listed = json.loads((folder / "non_finite_step_000017.json").read_text())
    assert listed["rows"] == [4, 5, 6, 7]  # of 12: row 64 mod 12 and on
    artefact.require(folder / "step_000015", "model", "", contents=True)


def test_it_goes_on_with_the_checkpoints_loss_scale(base, exhausted):
    run = train(base, "exhausted", "16-16", save_every=40, stop_step=18)
    assert run.code == 0 and "resuming after step 15" in run.output, run.errors
    rows = read_metrics(exhausted[1])[15:]
    assert [row["step"] for row in rows] == [16, 17, 18]
    assert [row["loss_scale"] for row in rows] == [1, 1, 1]
    assert [row["skipped"] for row in rows] == [14, 14, 14]


def test_scaled_training_equals_unscaled(base):
    """An overflow in step 3: the weights are those of a run that leaves its batch out."""
    assert train(base, "scaled", "3-3", total_steps=5).code == 0
    plain = call(base, flags("plain", total_steps=5, skip_steps=3))
    assert plain.code == 0, plain.errors
    found, expected = weights_of(base / "scaled"), weights_of(base / "plain")
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision, processes, stage", [("fp32", 1, 1), ("bf16", 2, 2)])
def test_an_infinite_gradient_stops_before_the_update(base, precision, processes, stage):
    """The loss of step 2 is finite, its gradient's norm is not; step 1 has a learning rate of 0."""
    save = f"steep {precision}"
    changes = {"model_path": "steep", "precision": precision, "zero_stage": stage, "save_every": 1}
    run = call(base, flags(save, **changes), processes)
    programs.one_message(run, 2, "in step 2 the gradients are not finite", "SKIP_STEPS=2")
    listed = json.loads((base / save / "non_finite_step_000002.json").read_text())
    assert listed["rows"] == [4, 5, 6, 7]
    assert [row["step"] for row in read_metrics(base / save)] == [1]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]  # DeepSpeed rounds first
    before = {name: w.to(dtype).float() for name, w in weights_of(base / "steep").items()}
    assert same(weights_of(base / save / "step_000001"), before)
