"""Vanilla KD: the original's own numbers, runs through the engine, models that do not fit.

.venv/bin/python -m pytest tests/pretrain/test_vanilla_kd.py
"""

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from data_utils import artefact
from data_utils.errors import InputError
from pretrain import train
from pretrain.flops import forward_flops
from pretrain.losses import inputs_and_labels
from pretrain.models import load_model
from pretrain.objectives.vanilla_kd import Objective, common_vocabulary
from pretrain.schedule import warmup_stable_decay
from tests import make, programs
from tests.faults import hooks
from tests.pretrain.runs import VOCAB, column, flags, make_base, same_run

ORIGINAL = json.loads(Path(__file__).with_name("original_kd.json").read_text())
EOS, INPUTS = 60, 12


def original_model(seed: int, hidden: int, layers: int, vocab: int = 61) -> torch.nn.Module:
    """The recipe of the recorded numbers: weights by name from numpy's legacy generator."""
    config = Qwen2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden + 8,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=True,
        max_position_embeddings=128,
        eos_token_id=EOS,
        pad_token_id=EOS,
        bos_token_id=None,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = np.random.RandomState(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            values = torch.from_numpy(state.standard_normal(tuple(p.shape)).astype(np.float32))
            small = 1 + 0.1 * values if "norm" in name else 0.1 * values
            p.copy_(values * 0.4 if p.ndim > 1 else small)
    return model.eval()


def objective_of(student, teacher, **settings) -> Objective:
    """The objective without a run around it."""
    plain = {"temperature": 1.0, "reverse_kl": False, "kd_skip_entropy": 0.0, "kd_ratio": 0.5}
    found = Objective.__new__(Objective)
    found.student, found.teacher, found.share = student, teacher, 0.5
    found.vocab, found.cache = student.config.vocab_size, None
    found.context = SimpleNamespace(settings=SimpleNamespace(**plain | settings), eos_id=EOS)
    return found


def batch(rows=ORIGINAL["rows"]) -> dict[str, torch.Tensor]:
    rows = [row[: INPUTS + 1] for row in rows]
    tokens = [row + [EOS] * (INPUTS + 1 - len(row)) for row in rows]
    return {"tokens": torch.tensor(tokens), "lengths": torch.tensor([len(row) for row in rows])}


def test_masks_are_the_originals():
    counted = inputs_and_labels(batch()["tokens"], batch()["lengths"], EOS)[2]
    assert counted.int().tolist() == ORIGINAL["loss_masks"]


def test_losses_and_gradients_are_the_originals():
    student, teacher = original_model(21, 16, 2), original_model(22, 24, 3)
    objective, expected = objective_of(student, teacher), ORIGINAL["models"]
    loss, figures = objective.loss(batch())
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected["loss"], rel=1e-5)
    for name in ("lm_loss", "kd_loss", "kd_entropy"):
        assert float(figures[name]) == pytest.approx(expected[name], rel=1e-5)
    for name, norm in expected["gradient_norms"].items():
        found = float(student.get_parameter(name).grad.norm())
        assert found == pytest.approx(norm, rel=1e-4), name
    assert all(p.grad is None for p in teacher.parameters())
    for number, row in enumerate(ORIGINAL["rows"]):
        _, figures = objective.loss(batch([row]))
        for name in ("lm_loss", "kd_loss", "kd_entropy"):
            each = expected["per_sequence"][name][number]
            assert float(figures[name]) == pytest.approx(each, rel=1e-5)


def test_five_updates_are_the_originals():
    student, teacher = original_model(21, 16, 2), original_model(22, 24, 3)
    objective, expected = objective_of(student, teacher), ORIGINAL["updates"]
    adam = torch.optim.AdamW(
        student.parameters(), lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01
    )
    for step in expected["steps"]:
        adam.zero_grad()
        loss, figures = objective.loss(batch())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        adam.step()
        assert float(loss.detach()) == pytest.approx(step["loss"], rel=1e-4)
        assert float(figures["kd_loss"]) == pytest.approx(step["kd_loss"], rel=1e-4)
        assert float(norm) == pytest.approx(step["grad_norm"], rel=1e-3)
    for name, weights in expected["final_weights"].items():
        found = float(student.get_parameter(name).detach().norm())
        assert found == pytest.approx(weights["norm"], rel=1e-4), name


def test_tokens_of_lowest_entropy_are_left_to_the_label():
    student, teacher = original_model(21, 16, 2), original_model(22, 24, 3)
    loss, figures = objective_of(student, teacher, kd_skip_entropy=0.999).loss(batch())
    counted = sum(map(sum, ORIGINAL["loss_masks"]))
    assert counted > 40  # all but one of them: the loss is nearly the label's
    assert abs(float(loss.detach() - figures["lm_loss"])) < 0.1
    none, _ = objective_of(student, teacher, kd_skip_entropy=1e-9).loss(batch())
    assert float(none.detach()) == pytest.approx(ORIGINAL["models"]["loss"], rel=1e-5)


def test_the_share_warms_up_stays_and_decays():
    found = [round(warmup_stable_decay(step, 4, 100), 3) for step in (1, 4, 50, 90, 95, 100)]
    assert found == [0.25, 1.0, 1.0, 1.0, 0.5, 0.0]


def test_padded_rows_of_logits_are_cut(tmp_path, capsys):
    tokenizer = make.train_tokenizer(tmp_path / "tokenizer", make.documents(30))
    corpus, first = SimpleNamespace(tokenizer_folder=tokenizer), SimpleNamespace(first=True)
    context = SimpleNamespace(corpus=corpus, processes=first)
    size = len(json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"])
    models = {n: original_model(1, 16, 1, n) for n in (size + 8, size + 16, size - 40)}
    found = common_vocabulary(models[size + 8], models[size + 16], context)
    assert size <= found < size + 8 and "cut off" in capsys.readouterr().out
    assert common_vocabulary(models[size + 8], models[size + 8], context) == size + 8
    with pytest.raises(InputError, match="fewer"):
        common_vocabulary(models[size - 40], models[size + 8], context)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    base = make_base(tmp_path_factory.mktemp("base path"))
    teacher = make.qwen_config(VOCAB, hidden=48)
    make.save_model(base / "teacher", teacher, 5, base / "tokenizer")
    return base


KD = {"OBJECTIVE": "vanilla_kd", "TEACHER_PATH": "teacher"}


def test_killed_and_resumed_equals_undisturbed_and_two_processes_equal_one(base):
    run = programs.call(base, "pretrain.train", base, *flags(SAVE="whole", **KD))
    assert run.code == 0, run.errors
    killed = hooks.start(base, flags(SAVE="killed", **KD), "step: the update", 10).wait()
    assert killed.code == -signal.SIGKILL
    again = hooks.start(base, flags(SAVE="killed", **KD)).wait()
    assert again.code == 0, again.errors
    same_run(base / "killed", base / "whole")
    counts, teacher = (
        artefact.read_manifest(base / "whole").counts,
        load_model(base / "teacher", "fp32", "sdpa"),
    )
    passed = forward_flops(teacher, counts["tokens"] / counts["sequences"]) * counts["tokens"]
    assert counts["teacher_flops"] == pytest.approx(passed, rel=0.01)
    two = ["cluster.launch", "--nproc", 2, "pretrain/train.py", base]
    run = programs.call(base, *two, *flags(SAVE="two", **KD))
    assert run.code == 0, run.errors
    for name in ("loss", "lm_loss", "kd_loss", "kd_entropy", "kl", "grad_norm"):
        found, expected = column(base / "two", name), column(base / "whole", name)
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-5), name
    loss, lm, kd, entropy, kl = (
        np.array(column(base / "whole", name))
        for name in ("loss", "lm_loss", "kd_loss", "kd_entropy", "kl")
    )
    assert np.allclose(kd, kl + entropy) and np.allclose(loss, (lm + kd) / 2)


def test_mistakes_are_found_before_any_process_starts(base):
    def refused(*more):
        with pytest.raises(InputError) as caught:
            train.check([str(base), *map(str, flags(SAVE="x", **KD)), *more], 1)
        return str(caught.value)

    assert "nowhere" in refused("--teacher-path", "nowhere")
    assert "--kd-ratio" in refused("--kd-ratio", "1.5")
    assert "--temperature" in refused("--temperature", "0")
    assert "--kd-skip-entropy" in refused("--kd-skip-entropy", "1")
