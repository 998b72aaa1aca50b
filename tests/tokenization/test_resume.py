"""Tokenizing and converting: the same bytes whatever the workers, encoder, format and kills.

.venv/bin/python -m pytest tests/tokenization/test_resume.py
"""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from data_utils import artefact_writer, shards
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from reports import corpus_page
from tests import make, programs
from tests.tools.test_get_pile import write_copy
from tokenization import convert, corpus_writer, encode, row_converter, shuffled_shards
from tokenization.chunker import Sequences
from tokenization.corpus_writer import CorpusWriter
from tokenization.shuffled_shards import ShuffledShards
from tokenization.source_table import SourceTable
from tools import convert_tokenization
from tools.process_data import tokenize_pile


@dataclass(frozen=True)
class Case:
    """A program with small steps, its phases and those that come once, draws and kills of a run."""

    module: ModuleType
    flags: list[str]
    small: tuple
    record: str
    phases: dict
    once: tuple
    draws: tuple
    kills: int


# Phases of a run, in its order: where a kill may come, before and after the call.
ENCODING = {"encoding": (encode.Encoder, "encode")}
RENAMING = {"renaming a file": (artefact_writer.os, "replace")}
END = {"checksums": (artefact_writer, "describe"), "the manifest": (Output, "finish")}
CASES = {
    "tokenize": Case(
        tokenize_pile,
        ["--data-dir", "text", "--tokenizer-path", "old", "--max-length", "33"]
        + ["--shard-size", "300"],
        (corpus_writer, "BATCH", 4000),
        corpus_writer.RECORD,
        ENCODING
        | {
            "cutting": (CorpusWriter, "cut"),
            "counting": (SourceTable, "add_documents"),
            "writing domains": (shuffled_shards.np, "save"),
            "writing a shard": (shuffled_shards, "write_shard"),
            "shuffling": (ShuffledShards, "_write"),
        }
        | RENAMING
        | {
            "recording progress": (CorpusWriter, "save"),
            "the last shard": (SourceTable, "close"),
            "the page": (corpus_page, "write"),
        }
        | END
        | {"removing the record": (Output, "_end")},
        ("the last shard", "the page", "the manifest", "removing the record"),
        (3, 20, 6),
        20,
    ),
    "convert": Case(
        convert_tokenization,
        ["--data-dir", "in/qwen-33", "--target-tokenizer-path", "new", "--workers", "1"],
        (convert, "ROWS", 16),
        "progress.json",
        {"reading": (Corpus, "sequences")}
        | ENCODING
        | {
            "joining": (row_converter, "join"),
            "writing a shard": (convert, "write_shard"),
            "writing row numbers": (convert, "write_sides"),
        }
        | RENAMING
        | {
            "recording progress": (convert, "write_progress"),
            "the tokenizer": (convert_tokenization, "copy_tokenizer"),
        }
        | END,
        ("the tokenizer", "the manifest"),
        (7, 10, 5),
        12,
    ),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    base = tmp_path_factory.mktemp("a base")
    make.write_text(base / "text", make.documents(90), ("A", "B", "C"))
    (base / "old").symlink_to(tokenizer_folder)
    make.train_tokenizer(base / "new", make.documents(20, seed=5), vocab_size=400)
    rows = make.text_rows(base / "old", 230, longest=33, seed=2)
    make.save_corpus(base / "in/qwen-33", rows, base / "old", max_length=33, shard_size=50)
    return base


def start(base: Path, name: str, save: str, *flags: str, kill: tuple = ()) -> int:
    """Run a program to its end, or to the kill: (phase, half calls before it); its exit code."""
    for log in ("log.out", "log.err"):
        (base / log).write_text("")
    words = [str(base), *CASES[name].flags, "--save", save, *flags]
    process = programs.CONTEXT.Process(target=run_and_die, args=(name, words, kill))
    process.start()
    process.join(120)
    return process.exitcode


def run_and_die(name: str, words: list[str], kill: tuple) -> None:
    case = CASES[name]
    setattr(*case.small)
    if kill:
        programs.kill_at(*case.phases[kill[0]], kill[1])
    programs.main(case.module.__name__, words, {}, Path(words[0]) / "log.out")


def made(base: Path, name: str, save: str, *flags: str) -> dict[str, str]:
    """The content of what a whole run makes."""
    assert start(base, name, save, *flags) == 0, (base / "log.err").read_text()
    return make.content(base / save)


@pytest.fixture(scope="module")
def undisturbed(base) -> dict[str, dict[str, str]]:
    found = {name: made(base, name, f"undisturbed/{name}-33") for name in CASES}
    for content in found.values():
        assert len([file for file in content if file.endswith(".bin")]) >= 5
    return found


@pytest.mark.parametrize("name", CASES)
def test_killed_in_every_phase_it_ends_with_the_same_bytes(base, undisturbed, name):
    case, save = CASES[name], f"killed/{name}-33"
    records = programs.kill_in_every_phase(
        lambda kill: start(base, name, save, kill=kill), base / save, undisturbed[name],
        case.phases, case.once, draws=case.draws, kills=case.kills,
    )  # fmt: skip
    assert records > 3


@pytest.mark.parametrize("name", CASES)
def test_finished_shards_are_not_written_again(base, undisturbed, name):
    save = f"resumed/{name}-33"
    folder = base / save
    assert start(base, name, save, kill=("recording progress", 5)) == -signal.SIGKILL
    assert (folder / CASES[name].record).exists()
    before = {path.name: path.stat().st_ino for path in folder.glob("*_[012].*")}
    assert len(before) >= 3 * 3
    assert made(base, name, save) == undisturbed[name]
    after = {path.name: path.stat().st_ino for path in folder.glob("*_[012].*")}
    assert before.items() <= after.items()


@pytest.mark.parametrize("damage", ["record", "data_0.bin"])
@pytest.mark.parametrize("name", CASES)
def test_damage_between_the_starts_is_an_error(base, name, damage):
    save = f"damaged {damage}/{name}-33"
    assert start(base, name, save, kill=("recording progress", 5)) == -signal.SIGKILL
    path = base / save / (CASES[name].record if damage == "record" else damage)
    path.write_bytes(path.read_bytes()[:-20])
    assert start(base, name, save) == 3
    message = (base / "log.err").read_text()
    assert str(path) in message and "remove" in message


@pytest.mark.parametrize("flags", [["--workers", "1"], ["--workers", "2"],
                                   ["--encoder", "huggingface"]], ids="-".join)  # fmt: skip
@pytest.mark.parametrize("name", CASES)
def test_workers_and_encoder_change_nothing(base, undisturbed, name, flags):
    save = "-".join(["other", name, *flags, "33"])
    assert made(base, name, save, *flags) == undisturbed[name]
    assert made(base, name, save, *flags) == undisturbed[name]
    assert "is there already" in (base / "log.out").read_text()


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz", ".parquet", "two files"])
def test_every_format_gives_the_same_bytes(base, undisturbed, suffix):
    lines = (base / "text/0.jsonl").read_bytes().splitlines(keepends=True)
    folder = base / f"text {suffix}"
    folder.mkdir()
    if suffix == "two files":  # natural order: 9 comes before 10
        (folder / "10.jsonl").write_bytes(b"".join(lines[40:]).rstrip(b"\n"))
        (folder / "9.jsonl").write_bytes(b"".join(lines[:40]))
    else:
        write_copy(folder / f"0{suffix}", [json.loads(line) for line in lines])
    found = made(base, "tokenize", f"from {suffix}/qwen-33", "--data-dir", folder.name)
    expected = undisturbed["tokenize"]
    assert found.pop("fingerprint") != expected["fingerprint"]  # of another text
    assert found.items() <= expected.items() and len(found) == len(expected) - 1


def test_more_than_255_sources_is_an_error(base):
    make.write_text(base / "many", make.documents(260), tuple(f"S{i}" for i in range(256)))
    assert start(base, "tokenize", "many/qwen-33", "--data-dir", "many") == 2
    assert "too many sources" in (base / "log.err").read_text()


def test_shuffled_shards_hold_one_shard_at_a_time(tmp_path):
    """What is left after a flush is less than a batch, and nothing else is held."""
    writer = ShuffledShards(tmp_path, "data", 4, np.dtype("<u2"))
    stream = np.arange(100, dtype=np.uint16)
    starts = np.arange(0, 100, 10)
    writer.add([(0, Sequences(stream, starts, starts + 10, np.arange(10)))])
    assert writer.flush() and writer.shards == 2 and writer.waiting == 2
    assert sum(len(part) for part in writer.streams) == 20
    assert not writer.flush()
    assert writer.flush(last=True) and writer.shards == 3 and writer.waiting == 0
    tokens = [shards.Shard(tmp_path / f"data_{i}").tokens for i in range(3)]
    assert sorted(np.concatenate(tokens).tolist()) == list(range(100))
