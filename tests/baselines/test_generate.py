"""SeqKD: the corpus that a teacher continues, by any number of workers; training on it; mistakes.

.venv/bin/python -m pytest tests/baselines/test_generate.py
"""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines import generate
from data_utils import artefact, blocks
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from miniplm import shard_copy
from pretrain.draws import uniforms
from pretrain.flops import forward_flops
from pretrain.models import load_model
from tests import make, programs
from tests.pretrain.runs import LONGEST, ROWS, VARIABLES, VOCAB, column

PROMPT, SEED = 20, 10
NAMES = {"TOKENIZER_NAME": "bpe", "MAX_LENGTH": LONGEST, "TEACHER_NAME": "tiny"}
CORPUS = f"processed_data/pretrain/pile/bpe-{LONGEST}"
MADE = f"processed_data/pretrain/pile-tiny-gen/bpe-{LONGEST}"
STORE = f"results/continuations/pile/bpe-{LONGEST}/tiny"
SMALL = {"PROMPT_LENGTH": PROMPT, "BLOCK_SIZE": 8, "TOKENS_PER_BATCH": 128, "SHARD_SIZE": 16}
FLAGS = {**SMALL, "MODEL_PATH": "teacher", "DATA_DIR": CORPUS}


@pytest.fixture(scope="module")
def base(base) -> Path:
    """With a teacher whose head is padded, and with the corpus where the launchers look for it."""
    config = make.qwen_config(VOCAB + 100, hidden=48)
    make.save_model(base / "teacher", config, 5, base / "tokenizer")
    shutil.copytree(base / "corpus", base / CORPUS)
    variables = {**NAMES, **SMALL, "MODEL_PATH": "teacher"}
    run = make.run("scripts/seqkd/generate.sh", base, **variables)
    assert f"{ROWS} rows" in run.stdout and "FLOPs" in run.stdout
    return base


def flags(save: str, store: str, **more: object) -> list[object]:
    return programs.flags({**FLAGS, "SAVE": save, "CONTINUATIONS": store, **more})


def test_rows_are_their_prompt_and_what_the_teacher_says(base):
    """Sampled one token at a time from a forward pass over the whole row, without a cache."""
    found, corpus = Corpus(base / MADE), Corpus(base / CORPUS)
    teacher, flops = load_model(base / "teacher", "fp32", "sdpa").eval(), 0
    generated = found.side("generated", np.arange(ROWS))
    for row in range(ROWS):
        tokens = corpus.row(row).tolist()
        length = len(tokens)
        assert generated[row] == max(length - PROMPT, 0)
        if length > PROMPT:
            flops += (length - 1) * forward_flops(teacher, length - 1)
        for position in range(PROMPT, length):
            with torch.no_grad():
                logits = teacher(torch.tensor([tokens[:position]])).logits[0, -1, :VOCAB]
            number = uniforms(SEED, torch.tensor([row]), torch.tensor([position]), 1)
            mass = logits.double().softmax(0).cumsum(0)
            tokens[position] = int((mass <= number[0]).sum())
        assert found.row(row).tolist() == tokens
    assert found.side("source_row", np.arange(ROWS)).tolist() == list(range(ROWS))
    domains = (c.side("domain", np.arange(ROWS)) for c in (found, corpus))
    assert np.array_equal(*domains)
    counts = found.manifest.counts
    assert counts["whole_rows"] == (generated == 0).sum() > 0
    assert counts["generated_tokens"] == generated.sum() > 100
    assert counts["flops"] == pytest.approx(flops) and counts["domains"] == ["A", "B"]
    assert found.origins()[corpus.identity["fingerprint"]] == [0, 2]
    run = programs.call(base, "tools.verify", base / "processed_data", base / "results")
    assert run.code == 0, run.output


def test_the_bytes_do_not_depend_on_the_workers(base):
    runs = [
        programs.start(base, "baselines.generate", base, *flags(f"{count} made", f"{count} store"))
        for count in (2, 3)
        for _ in range(count)
    ]
    assert [run.wait(300).code for run in runs] == [0] * 5, [run.errors for run in runs]
    for count in (2, 3):
        assert make.content(base / f"{count} made") == make.content(base / MADE)
        found, expected = (artefact.read_manifest(base / s) for s in (f"{count} store", STORE))
        assert found.fingerprint == expected.fingerprint


def test_the_last_shard_alone_is_continued_as_with_all(base):
    """The noise follows from the row's number in the whole corpus."""
    words = flags("last", "last store", SHARDS="1:2", SHARD_SIZE=5)
    run = programs.call(base, "baselines.generate", base, *words)
    assert run.code == 0, run.errors
    last, whole = Corpus(base / "last"), Corpus(base / MADE)
    first = ROWS - len(last)
    assert first == 30 and last.side("source_row", np.array([0])) == [first]
    assert all(np.array_equal(last.row(i), whole.row(first + i)) for i in range(len(last)))


PHASES = {  # the call, and how many half calls before the kill
    "sampling": (generate, "continue_prompts", 3),
    "publishing": (os, "link", 5),
    "the store's manifest": (Output, "finish", 0),
    "between manifest and corpus": (Output, "finish", 1),
    "the second shard's tokens": (shard_copy, "write_index", 2),
    "its last file": (shard_copy, "write_side", 5),
    "the corpus's manifest": (Output, "finish", 0),
}


def run_and_die(words: list, phase: str | None, output: Path) -> None:
    """The program's main() with fast claims, killed in this phase."""
    blocks.HEARTBEAT, blocks.STALE, blocks.FIRST_WAIT = 0.2, 2.0, 0.05
    if phase:
        programs.kill_at(*PHASES[phase])
    programs.main("baselines.generate", words, {}, output)


def test_killed_in_every_phase_it_ends_with_the_same_bytes(base):
    words = [base, *flags("killed", "killed store")]
    for phase in PHASES:
        run = programs.fork(base, run_and_die, words, phase).wait()
        assert run.code == -signal.SIGKILL, (phase, run.errors)
        with pytest.raises(ArtefactError, match="unfinished"):
            Corpus(base / "killed")
    run = programs.fork(base, run_and_die, words, None).wait()
    assert run.code == 0, run.errors
    assert make.content(base / "killed") == make.content(base / MADE)
    left = {p.name for p in (base / "killed").iterdir()} - set(make.content(base / "killed"))
    assert left == {"manifest.json", "settings.json", ".lock", "tokenizer"}


def test_a_student_trains_on_it_through_the_launcher(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert " " in str(base)
    variables = {**VARIABLES, **NAMES, "TOTAL_STEPS": 6, "SAVE_EVERY": 2}
    del variables["DATA_DIR"]
    for more in ({"STOP_STEP": 4}, {}):
        make.run("scripts/seqkd/qwen/200M.sh", base, **variables, **more)
    folder = base / "results/seqkd/qwen/200M"
    assert column(folder, "step") == list(range(1, 7))
    trained_on = artefact.read_manifest(folder).counts["trained_on"]
    assert set(trained_on) == {
        artefact.read_manifest(base / name).fingerprint for name in (MADE, CORPUS)
    }


def test_mistakes_are_found_before_any_work(base):
    def refused(save: str = "x", **more: object) -> str:
        with pytest.raises(InputError) as caught:
            generate.check([str(base), *map(str, flags(save, f"{save} store", **more))], 1)
        return str(caught.value)

    assert "nothing to generate" in refused(PROMPT_LENGTH=LONGEST)
    assert "--temperature" in refused(TEMPERATURE=-1) and "--top-p" in refused(TOP_P=0)
    other = make.train_tokenizer(base / "other tokenizer", make.documents(20, seed=3), VOCAB)
    make.save_model(base / "other", make.qwen_config(VOCAB), 5, other)
    assert "tokenizer is not the corpus's" in refused(MODEL_PATH="other")
    mamba = {"model_type": "mamba", "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 1}
    make.save_model(base / "mamba", mamba, 5, base / "tokenizer")
    assert "no key-value cache" in refused(MODEL_PATH="mamba")
    assert not (base / "x").exists()
    generate.check([str(base), *map(str, flags("begun", "begun store"))], 1)
    assert "another seed, temperature" in refused("begun", SEED=11, TEMPERATURE=0)


def test_logits_that_are_not_finite_are_named(base):
    shutil.copytree(base / "teacher", base / "broken")
    model = load_model(base / "broken", "fp32", "sdpa")
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    model.save_pretrained(base / "broken")
    words = flags("y", "y store", MODEL_PATH="broken")
    run = programs.call(base, "baselines.generate", base, *words)
    programs.one_message(run, 3, "logits are not finite", "row", "of data_", "PRECISION")
