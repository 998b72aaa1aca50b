"""Selection of the refined corpus: ours against a full sort and a per-row copy loop.

    .venv/bin/python benchmarks/bench_selection.py [--rows 200000] [--tokens 1025] [--runs 5]

Both sides read a synthetic corpus through memory maps and difference scores from their file, keep
half of the rows, and write the same data_0.bin, data_0.idx, source_row_0.npy and domain_0.npy.
Obvious: a stable argsort of all scores, then for each kept row its length and offset from the index
and its tokens, written one after the other. Part `choose` is from the scores to the row numbers,
`copy` from there to the last file's fsync. --tokens is the longest row, the shortest has half as
many. At the method's 1,025 tokens both sides wait for the disk.
"""

import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import hashlib
import os
import tempfile

import numpy as np

from benchmarks import harness
from data_utils.corpus import Corpus
from data_utils.shards import HEADER, write_index, write_shard
from miniplm.ranking import top
from miniplm.shard_copy import copy_shards

FILES = ("data_0.bin", "data_0.idx", "source_row_0.npy", "domain_0.npy")
TOKEN, PIECE = np.dtype("<u2"), 100_000


def main() -> None:
    options = harness.options(__doc__, rows=200_000, tokens=1025, folder="")
    if options.side:
        measure(options.side, Path(options.folder))
        return
    with tempfile.TemporaryDirectory(dir=options.folder or None) as folder:
        make_input(Path(folder), options.rows, options.tokens)
        size = (Path(folder) / "data_0.bin").stat().st_size
        print(f"{options.rows:,} rows, {size / 1e6:.0f} MB of tokens, half of the rows are kept")
        harness.compare("bench_selection", __file__, ["--folder", folder], runs=options.runs)


def make_input(folder: Path, rows: int, tokens: int) -> None:
    """A shard of random rows of tokens / 2 to `tokens` tokens, with scores and domains."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(max(tokens // 2, 1), tokens + 1, rows)
    sizes = np.add.reduceat(lengths, np.arange(0, rows, PIECE))
    parts = (generator.integers(0, 60_000, size).astype(TOKEN) for size in sizes)
    write_shard(folder / "data_0", lengths, parts, TOKEN)
    np.save(folder / "domain_0.npy", generator.integers(0, 17, rows).astype(np.uint8))
    np.save(folder / "difference.npy", generator.normal(0.5, 0.3, rows))


def measure(side: str, folder: Path) -> None:
    """One side's time, and what it wrote."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        start = time.perf_counter()
        rows = {harness.OURS: choose, harness.OBVIOUS: sort_all}[side](folder)
        chosen = time.perf_counter()
        {harness.OURS: copy, harness.OBVIOUS: copy_one_by_one}[side](folder, rows, Path(out))
        end = time.perf_counter()
        written = hashlib.sha256()
        for name in FILES:
            written.update((Path(out) / name).read_bytes())
        size = sum((Path(out) / name).stat().st_size for name in FILES)
    parts = {"choose": chosen - start, "copy": end - chosen}
    text = f"{len(rows)} rows, {size} bytes, {written.hexdigest()[:16]}"
    harness.report(end - start, text, parts=parts)


def choose(folder: Path) -> np.ndarray:
    """Ours: a stable sort of all scores."""
    r = np.load(folder / "difference.npy", mmap_mode="r")
    return top(r, len(r) // 2)


def copy(folder: Path, rows: np.ndarray, out: Path) -> None:
    """Ours: the program's own copy."""
    copy_shards(Corpus(folder), rows, out, len(rows))


def sort_all(folder: Path) -> np.ndarray:
    """The obvious way: all rows sorted by score, ties by row."""
    r = np.load(folder / "difference.npy", mmap_mode="r")
    return np.sort(np.argsort(-r, kind="stable")[: len(r) // 2])


def copy_one_by_one(folder: Path, rows: np.ndarray, out: Path) -> None:
    """The obvious way: a loop over the kept rows on memory maps."""
    index = folder / "data_0.idx"
    n = HEADER.unpack_from(index.read_bytes()[: HEADER.size])[3]
    lengths = np.memmap(index, "<i4", "r", HEADER.size, n)
    offsets = np.memmap(index, "<i8", "r", HEADER.size + 4 * n, n)
    tokens = np.memmap(folder / "data_0.bin", TOKEN, "r")
    domains = np.load(folder / "domain_0.npy", mmap_mode="r")
    kept_lengths, kept_domains = [], []
    with open(out / "data_0.bin", "wb") as file:
        for row in rows:
            start = offsets[row] // TOKEN.itemsize
            file.write(tokens[start : start + lengths[row]])
            kept_lengths.append(lengths[row])
            kept_domains.append(domains[row])
        file.flush()
        os.fsync(file.fileno())
    write_index(out / "data_0", np.array(kept_lengths), TOKEN)
    np.save(out / "source_row_0.npy", rows)
    np.save(out / "domain_0.npy", np.array(kept_domains))


if __name__ == "__main__":
    main()
