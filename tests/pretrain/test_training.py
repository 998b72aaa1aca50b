"""Whole runs of pre-training through a launcher: what they learn, log and leave behind.

One BASE_PATH (with a space in its name) and few runs, shared by all tests: each start costs 10 s.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_utils import artefact
from data_utils.corpus import Corpus
from pretrain.metrics import read_metrics
from tests import make, programs
from tests.pretrain.runs import (
    BATCH,
    EOS,
    LR,
    ROWS,
    SLOW,
    STEPS,
    VARIABLES,
    WARMUP,
    Machine,
    column,
    damage,
    flags,
    make_base,
    none_left,
    same_run,
    train,
)

KEYS = "step loss lr grad_norm loss_scale tokens sequences skipped tokens_per_second"
KEYS += " memory data_wait seconds"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("base path"))


@pytest.fixture(scope="module")
def one(base) -> Path:
    """The folder of an undisturbed run of one process."""
    train(base, "one", NPROC=1)
    return base / "one"


@pytest.fixture(scope="module")
def two(base) -> Path:
    """The folder of an undisturbed run of two processes."""
    train(base, "two", NPROC=2, KEEP_LAST=1, KEEP_EVERY=4)
    return base / "two"


def obvious_loss(model: torch.nn.Module, row: np.ndarray) -> torch.Tensor:
    """Mean over the positions whose input is not end-of-text; 0 where there are none."""
    ids = torch.tensor(row.astype(np.int64))
    log_probs = model(ids[None, :-1]).logits[0].log_softmax(-1)
    losses = [-log_probs[i, ids[i + 1]] for i in range(len(ids) - 1) if ids[i] != EOS]
    return sum(losses) / len(losses) if losses else torch.zeros(())


def test_two_processes_equal_one(one, two):
    for name in ("loss", "grad_norm"):
        assert column(two, name) == pytest.approx(column(one, name), rel=1e-5)
    for name in ("step", "lr", "tokens", "sequences", "skipped"):
        assert column(two, name) == column(one, name)
    models = [AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (one, two)]
    for name in models[0]:
        torch.testing.assert_close(models[1][name], models[0][name], rtol=0, atol=1e-4)


def test_the_final_model_opens_alone_and_gives_the_loss_that_was_logged(base, one):
    model = AutoModelForCausalLM.from_pretrained(one).eval()
    assert AutoTokenizer.from_pretrained(one).eos_token_id == model.config.eos_token_id == EOS
    assert all(p.dtype == torch.float32 for p in model.parameters())
    corpus = Corpus(base / "held out")
    with torch.no_grad():
        losses = [float(obvious_loss(model, corpus.row(row))) for row in range(len(corpus))]
    logged = read_metrics(one)[-1]["valid_loss"]
    assert logged == pytest.approx(np.mean(losses), abs=1e-5)


def test_the_evaluation_agrees_with_the_loss_that_was_logged(base, one):
    flags = ["--model-path", "one", "--ckpt-name", "one"]
    make.run("scripts/eval/lm.sh", base, *flags, DATA_DIR="held out", SPLIT="data")
    result = json.loads((base / "results/eval/lm/one.json").read_text())
    logged = read_metrics(one)[-1]["valid_loss"]
    assert result["loss"] == pytest.approx(logged, abs=1e-5)


def test_metrics(one):
    rows = read_metrics(one)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(set(KEYS.split()) <= row.keys() for row in rows)
    assert [row["step"] for row in rows if "valid_loss" in row] == [4, 8, 12]
    lengths = Corpus(one.parent / "corpus").lengths(np.arange(STEPS * BATCH) % ROWS)
    assert column(one, "tokens") == np.cumsum(lengths)[BATCH - 1 :: BATCH].tolist()
    assert column(one, "sequences") == [BATCH * step for step in range(1, STEPS + 1)]
    assert min(column(one, "memory")) > 1e8
    assert all(0 <= row["data_wait"] <= row["seconds"] for row in rows)
    assert column(one, "lr")[:2] == [0.0, LR / WARMUP]
    assert (one / "curves.png").stat().st_size > 1000


def test_the_finished_artefact_and_its_checkpoints(base, one, two):
    for folder in (one, two):
        manifest = artefact.require(folder, "model", "", contents=True)
        assert manifest.counts["step"] == STEPS and manifest.counts["tokens"] > 0
        corpus = artefact.read_manifest(base / "corpus").fingerprint
        assert manifest.input_fingerprint("corpus") == corpus
        assert list(manifest.counts["trained_on"]) == [corpus]
        names = {entry["name"] for entry in manifest.files}
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert {p.name for p in one.glob("step_*")} == {"step_000008", "step_000012"}
    assert {p.name for p in two.glob("step_*")} == {f"step_{n:06d}" for n in (4, 8, 12)}
    for folder in [*one.glob("step_*"), *two.glob("step_*")]:
        artefact.require(folder, "model", "", contents=True)
        resumable = folder.parent == one or folder.name == "step_000012"
        assert (folder / "deepspeed").is_dir() == resumable
        AutoModelForCausalLM.from_pretrained(folder)


def test_stopped_killed_by_a_signal_damaged_and_resumed_equals_undisturbed(base, one):
    """Early end after step 5; SIGTERM while it continues; a flipped bit in what that left."""
    folder = base / "stopped"
    assert "STOP_STEP=5" in train(base, "stopped", NPROC=1, STOP_STEP=5).stdout
    assert not (folder / artefact.MANIFEST).exists()
    run = Machine(base, "stopped", VARIABLES, SAVE="stopped", NPROC=1)
    output = run.until("GB per checkpoint").stop()
    assert "resuming after step 5" in output
    assert output.count("STOPPED by SIGTERM after step 6 of 12, checkpoint written") == 1
    none_left(base)
    damage(folder / "step_000006/deepspeed/state/zero_pp_rank_0_mp_rank_00_optim_states.pt")
    output = train(base, "stopped", NPROC=1).stdout
    assert output.count("step_000006 is damaged and passed over") == 1
    assert "resuming after step 5" in output
    same_run(folder, one)
    assert [r["step"] for r in read_metrics(folder) if "valid_loss" in r] == [4, 5, 8, 12]


def test_two_processes_stop_together_and_resume(base, two):
    """SIGTERM to the launcher's process in the middle; then one rank's file is cut short."""
    folder = base / "signalled"
    run = Machine(base, "signalled", SLOW, SAVE="signalled", NPROC=2)
    output = run.until(folder / "step_000002").stop()
    assert output.count("STOPPED by SIGTERM") == 1 and "Traceback" not in output
    none_left(base)
    last = sorted(folder.glob("step_*"))[-1]
    step = int(last.name.removeprefix("step_"))
    assert f"after step {step} of 12" in output and 2 <= step < STEPS
    damage(last / "deepspeed/state/zero_pp_rank_1_mp_rank_00_optim_states.pt", 100)
    output = train(base, "signalled", NPROC=2).stdout
    assert output.count(f"{last.name} is damaged and passed over") == 1
    assert f"resuming after step {step - 1}" in output
    same_run(folder, two)


def test_other_numbers_of_processes_zero_stages_and_micro_batches_go_on(base, two):
    """2 -> 1 -> 2 processes, ZeRO 1 -> 2 -> 1: the same data per step, the losses to 1e-5."""
    train(base, "elastic", NPROC=2, STOP_STEP=4)
    second = train(base, "elastic", NPROC=1, STOP_STEP=8, ZERO_STAGE=2, MICRO_BATCH=4)
    assert "converting" in second.stdout and "to 1 processes and ZeRO 2" in second.stdout
    assert "resuming after step 4" in second.stdout
    third = train(base, "elastic", NPROC=2, MICRO_BATCH=1)
    assert "to 2 processes and ZeRO 1" in third.stdout
    folder = base / "elastic"
    for name in ("step", "lr", "tokens", "sequences"):
        assert column(folder, name) == column(two, name)
    for name in ("loss", "grad_norm"):
        assert column(folder, name) == pytest.approx(column(two, name), rel=1e-5)
    assert not (folder / ".converted.tmp").exists()


def test_run_again_says_that_it_is_trained(base, one):
    before = (one / "manifest.json").read_bytes()
    again = programs.call(base, "pretrain.train", base, *flags(SAVE="one"))
    assert again.code == 0 and "trained already" in again.output
    assert (one / "manifest.json").read_bytes() == before
    other = programs.call(base, "pretrain.train", base, *flags(SAVE="one", LR=3e-3))
    assert other.code == 2 and "begun with another lr" in other.errors


def test_a_run_whose_checkpoints_are_gone_says_that_it_begins_again(base, one):
    folder = base / "lost"
    folder.mkdir()
    for name in ("settings.json", "metrics.jsonl"):
        shutil.copy(one / name, folder)
    run = programs.call(base, "pretrain.train", base, *flags(SAVE="lost", STOP_STEP=1))
    assert run.code == 0 and f"no checkpoint in {folder}" in run.output
    assert column(folder, "loss") == column(one, "loss")[:1]


def test_without_a_whole_checkpoint_it_stops_and_resume_0_refuses(base, one):
    folder = base / "broken"
    folder.mkdir()
    shutil.copy(one / "settings.json", folder)
    shutil.copytree(one / "step_000008", folder / "step_000008")
    damage(folder / "step_000008/model.safetensors")
    run = programs.call(base, "pretrain.train", base, *flags(SAVE="broken"))
    assert run.code == 3 and "no checkpoint is intact" in run.errors
    run = programs.call(base, "pretrain.train", base, *flags(SAVE="broken", RESUME=0))
    assert run.code == 2 and "RESUME=0" in run.errors
