"""Reading padded batches from a corpus: data_utils/corpus.py against a torch Dataset.

    .venv/bin/python benchmarks/bench_reader.py [--megabytes 100] [--tokenizer FOLDER] [--runs 5]

Obvious: one sequence at a time through a Dataset on numpy memory maps (Megatron-LM's way, the
fastest obvious one) and torch's DataLoader with num_workers=0; its collate function is torch's
pad_sequence. Both sides yield the same tensors (int64) from maps that have been read once before.
The corpus is real text in Qwen's tokens, int32, and again as uint16 with the ids modulo 65,000. A
part is ROWS sequences in batches of one size, in random order or in the corpus's.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import argparse
import bisect
import hashlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from benchmarks import harness, real_input
from data_utils.corpus import Corpus
from data_utils.program import CODE_ROOT
from data_utils.shards import HEADER, Shard, find_shards, write_shard

ROWS, SIZES, SHARD = 16_384, (8, 16, 512), 2_000
TYPES = {"int32": np.dtype("<i4"), "uint16": np.dtype("<u2")}
PAD = 0
Reader = Callable[[list[np.ndarray]], Iterable[tuple[torch.Tensor, torch.Tensor]]]


def main() -> None:
    options = harness.options(__doc__, megabytes=100, tokenizer="", folder="")
    if options.side is None:
        compare(options)
    else:
        measure({harness.OURS: ours, harness.OBVIOUS: obvious}[options.side], Path(options.folder))


def compare(options: argparse.Namespace) -> None:
    """Make the two corpora and compare both sides on them."""
    tokenizer = options.tokenizer or real_input.npm_tokenizer("qwen3", "<|endoftext|>")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = real_input.write_text(folder / "text", options.megabytes * 1_000_000)
        program = CODE_ROOT / "tools/process_data/tokenize_pile.py"
        flags = ["--data-dir", "text", "--save", "int32", "--tokenizer-path", tokenizer]
        flags += ["--shard-size", SHARD]
        command = [sys.executable, program, folder, *flags]
        subprocess.run(map(str, command), check=True, stdout=subprocess.DEVNULL)
        (folder / "uint16").mkdir()
        for prefix in find_shards(folder / "int32", "data"):
            shard = Shard(prefix)
            tokens = [shard.tokens % 65_000]
            write_shard(folder / "uint16" / prefix.name, shard.lengths, tokens, TYPES["uint16"])
        corpus = Corpus(folder / "int32")
        print(
            f"{size / 1e6:.1f} MB of text, {len(corpus):,} sequences, {len(corpus.shards)} shards"
        )
        harness.compare("bench_reader", __file__, ["--folder", folder], runs=options.runs)


def measure(side: Callable[[Path, np.dtype], tuple[Reader, int]], folder: Path) -> None:
    """Time all parts of a side, then read them again for the hash of what they yield."""
    torch.set_num_threads(1)
    parts, digest, size = {}, hashlib.sha256(), 0
    for name, dtype in TYPES.items():
        reader, rows = side(folder / name, dtype)
        for order, numbers in (
            ("random", np.random.default_rng(0).integers(0, rows, ROWS)),
            ("in order", np.arange(ROWS) % rows),
        ):
            for batch in SIZES:
                batches = np.split(numbers, ROWS // batch)
                for _ in reader(batches):
                    pass
                started = time.perf_counter()
                for _ in reader(batches):
                    pass
                parts[f"{name}, {order}, {batch} rows"] = time.perf_counter() - started
                for tensor in (t for pair in reader(batches) for t in pair):
                    digest.update(tensor.numpy())
                    size += tensor.nbytes
    output = f"{size:,} bytes, SHA-256 {digest.hexdigest()[:16]}"
    harness.report(sum(parts.values()), output, peak_bytes=0, parts=parts)


def ours(folder: Path, dtype: np.dtype) -> tuple[Reader, int]:
    """Corpus.batch, as training and scoring use it."""
    corpus = Corpus(folder)

    def read(batches: list[np.ndarray]) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        for rows in batches:
            tokens, lengths = corpus.batch(rows, PAD)
            yield torch.from_numpy(tokens), torch.from_numpy(lengths)

    return read, len(corpus)


def obvious(folder: Path, dtype: np.dtype) -> tuple[Reader, int]:
    """A Dataset of single sequences, collated by a DataLoader."""
    sequences = Sequences(folder, dtype)

    def read(batches: list[np.ndarray]) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        rows = [batch.tolist() for batch in batches]
        return DataLoader(sequences, batch_sampler=rows, collate_fn=collate, num_workers=0)

    return read, len(sequences)


class Sequences(Dataset):
    """Sequences of memory-mapped shards, one at a time."""

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        self.dtype, self.shards, self.starts = dtype, [], [0]
        for prefix in find_shards(folder, "data"):
            index = memoryview(np.memmap(f"{prefix}.idx", mode="r"))
            n = HEADER.unpack(index[: HEADER.size])[3]
            lengths = np.frombuffer(index, "<i4", n, HEADER.size)
            offsets = np.frombuffer(index, "<i8", n, HEADER.size + 4 * n)
            tokens = memoryview(np.memmap(f"{prefix}.bin", mode="r"))
            self.shards.append((lengths, offsets, tokens))
            self.starts.append(self.starts[-1] + n)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, row: int) -> torch.Tensor:
        number = bisect.bisect_right(self.starts, row) - 1
        lengths, offsets, tokens = self.shards[number]
        inside = row - self.starts[number]
        sequence = np.frombuffer(tokens, self.dtype, lengths[inside], offsets[inside])
        return torch.from_numpy(sequence.astype(np.int64))


def collate(sequences: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens padded on the right, lengths)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return pad_sequence(sequences, batch_first=True, padding_value=PAD), lengths


if __name__ == "__main__":
    run(main)
