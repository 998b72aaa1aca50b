"""Tokenising: the same bytes whatever the workers, the encoder, the format and the interruptions.

.venv/bin/python -m pytest tests/tokenization/test_tokenize_resume.py
"""

import contextlib
import gzip
import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard

from cluster.failure_record import alive
from data_utils import artefact_writer, shards
from data_utils.artefact_writer import Output
from reports import corpus_page
from tests import make, programs
from tokenization import encode, resume_record, shuffled_shards, source_table
from tokenization.chunker import Sequences
from tools.process_data import tokenize_pile

SETTINGS = ["--max-length", "33", "--shard-size", "300", "--tokenizer-path", "tokenizer"]


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    base = tmp_path_factory.mktemp("a base")
    make.write_text(base / "text", make.documents(90), ("A", "B", "C"))
    (base / "tokenizer").symlink_to(tokenizer_folder)
    for name in ("log.out", "log.err"):
        (base / name).touch()
    return base


def tokenise(base: Path, save: str, *flags: str, text: str = "text", kill: tuple = ()):
    """Run the program as a process of its own; kill: (phase, call) at which it kills itself."""
    words = [str(base), *SETTINGS, "--data-dir", text, "--save", save, *flags]
    process = programs.CONTEXT.Process(target=run_and_die, args=(words, kill))
    process.start()
    process.join(120)
    return process.exitcode


# Phases of a run: where a kill may come, before and after the call.
PHASES = {
    "encoding": (encode.Encoder, "encode"),
    "cutting": (tokenize_pile, "cut"),
    "counting": (source_table.SourceTable, "add_documents"),
    "writing domains": (shuffled_shards.np, "save"),
    "writing a shard": (shuffled_shards, "write_shard"),
    "gathering": (shuffled_shards.np.random.RandomState, "permutation"),
    "renaming a file": (artefact_writer.os, "replace"),
    "recording progress": (resume_record, "save"),
    "the last shard": (source_table.SourceTable, "close"),
    "the page": (corpus_page, "write"),
    "checksums": (artefact_writer, "describe"),
    "the manifest": (Output, "finish"),
    "removing the record": (Output, "_end"),
}

ONCE = ("the last shard", "the page", "the manifest", "removing the record")  # called once a run


def run_and_die(words: list[str], kill: tuple) -> None:
    """The program's main() with small batches; kill[0]: a phase, kill[1]: half calls before it."""
    tokenize_pile.BATCH = 4000
    if kill:
        phase, moment = kill
        owner, name = PHASES[phase]
        if phase == "gathering":
            owner, name = shuffled_shards.ShuffledShards, "_write"
        programs.kill_at(owner, name, moment)
    programs._main("tools.process_data.tokenize_pile", words, {}, Path(words[0]) / "log.out")


@pytest.fixture(scope="module")
def undisturbed(base) -> dict[str, str]:
    assert tokenise(base, "undisturbed/qwen-33") == 0, (base / "log.err").read_text()
    found = make.content(base / "undisturbed/qwen-33")
    assert len([name for name in found if name.endswith(".bin")]) > 5
    return found


def test_killed_in_every_phase_it_ends_with_the_same_bytes(base, undisturbed):
    records = programs.kill_in_every_phase(
        lambda kill: tokenise(base, "killed/qwen-33", kill=kill),
        base / "killed/qwen-33", undisturbed, PHASES, ONCE, draws=(3, 20, 6), kills=20,
    )  # fmt: skip
    assert records > 3


def test_a_start_goes_on_behind_the_last_complete_shard(base, undisturbed):
    folder = base / "resumed/qwen-33"
    assert tokenise(base, "resumed/qwen-33", kill=("recording progress", 5)) != 0
    before = {path.name: path.stat().st_ino for path in folder.glob("data_*")}
    assert len(before) >= 4 and (folder / resume_record.NAME).exists()
    assert tokenise(base, "resumed/qwen-33") == 0
    after = {path.name: path.stat().st_ino for path in folder.glob("data_*")}
    assert before.items() <= after.items()  # none of them was written again
    assert make.content(folder) == undisturbed


@pytest.mark.parametrize("damage", ["record", "shard"])
def test_damage_between_the_starts_is_an_error(base, damage):
    folder = base / f"damaged {damage}/qwen-33"
    assert tokenise(base, str(folder), kill=("recording progress", 5)) != 0
    path = folder / (resume_record.NAME if damage == "record" else "data_0.bin")
    path.write_bytes(path.read_bytes()[:-100])
    (base / "log.err").write_text("")
    assert tokenise(base, str(folder)) == 3
    message = (base / "log.err").read_text()
    assert str(path) in message and "remove" in message


@pytest.mark.parametrize("flags", [["--workers", "1"], ["--encoder", "huggingface"],
                                   ["--encoder", "huggingface", "--workers", "1"]])  # fmt: skip
def test_workers_and_encoder_change_nothing(base, undisturbed, flags):
    save = "-".join(["other", *flags, "33"])
    assert tokenise(base, save, *flags) == 0, (base / "log.err").read_text()
    assert make.content(base / save) == undisturbed


def test_no_worker_of_a_killed_run_is_left(base):
    """Hugging Face's tokenizer runs in processes of their own: they end with a killed parent."""
    words = [str(base), *SETTINGS, "--data-dir", "text", "--save", "orphans/qwen-33"]
    words += ["--encoder", "huggingface", "--workers", "2"]
    process = programs.CONTEXT.Process(target=run_and_die, args=(words, ("counting", 3)))
    process.start()
    workers = set()
    while process.is_alive():
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with contextlib.suppress(OSError):
            workers |= {int(word) for word in path.read_text().split()}
        time.sleep(0.02)
    assert process.exitcode == -signal.SIGKILL and len(workers) >= 2
    deadline = time.monotonic() + 20
    while (left := [w for w in workers if alive(w)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


@pytest.mark.parametrize("suffix", [".jsonl.zst", ".jsonl.gz", ".parquet", "two files"])
def test_every_format_gives_the_same_bytes(base, undisturbed, suffix):
    data = (base / "text/0.jsonl").read_bytes()
    folder = base / f"text {suffix}"
    folder.mkdir()
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        rows = [json.loads(line) for line in data.splitlines()]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "0.parquet")
    elif suffix == "two files":  # natural order: 9 comes before 10
        lines = data.splitlines(keepends=True)
        (folder / "10.jsonl").write_bytes(b"".join(lines[40:]).rstrip(b"\n"))
        (folder / "9.jsonl").write_bytes(b"".join(lines[:40]))
    else:
        compress = zstandard.compress if suffix.endswith("zst") else gzip.compress
        (folder / f"0{suffix}").write_bytes(compress(data))
    assert tokenise(base, f"from {suffix}/qwen-33", text=folder.name) == 0
    found = make.content(base / f"from {suffix}/qwen-33")
    assert found.pop("fingerprint") != undisturbed["fingerprint"]  # of another text
    assert found.items() <= undisturbed.items() and len(found) == len(undisturbed) - 1


def test_more_than_255_sources_is_an_error(base):
    make.write_text(base / "many", make.documents(260), tuple(f"S{i}" for i in range(256)))
    (base / "log.err").write_text("")
    assert tokenise(base, "many/qwen-33", text="many") == 2
    assert "too many sources" in (base / "log.err").read_text()


def test_shuffled_shards_hold_one_shard_at_a_time(tmp_path):
    """What is left after a flush is less than a batch, and nothing else is held."""
    writer = shuffled_shards.ShuffledShards(tmp_path, "data", 4, np.dtype("<u2"))
    stream = np.arange(100, dtype=np.uint16)
    starts = np.arange(0, 100, 10)
    writer.add([(0, Sequences(stream, starts, starts + 10, np.arange(10)))])
    assert writer.flush() and writer.shards == 2 and writer.waiting == 2
    assert sum(len(part) for part in writer.streams) == 20
    assert not writer.flush()
    assert writer.flush(last=True) and writer.shards == 3 and writer.waiting == 0
    tokens = [shards.Shard(tmp_path / f"data_{i}").tokens for i in range(3)]
    assert sorted(np.concatenate(tokens).tolist()) == list(range(100))
