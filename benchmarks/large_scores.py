"""What the two programs of difference sampling take on many scores: seconds and peak memory.

    .venv/bin/python benchmarks/large_scores.py [--rows 20000000] [--folder FOLDER]

A synthetic corpus of short rows in shards of a million, and the score stores of a teacher and a
reference; each program in a process of its own.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.start import run, use_project_python

    use_project_python()

import argparse
import os
import re
import subprocess
import tempfile
import time

import numpy as np

from data_utils import artefact
from data_utils.corpus import write_side
from data_utils.shards import write_shard
from data_utils.start import CODE_ROOT
from miniplm.scores import SUFFIX, job_of, write_block

SHARD, BLOCK, LONGEST, TOKEN = 1_000_000, 8192, 9, np.dtype("<u2")
PROGRAMS = CODE_ROOT / "scripts/miniplm/difference_sampling"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--folder", default=None, help="where the input goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        base, generator = Path(name), np.random.default_rng(0)
        corpus, lengths = write_corpus(base / "corpus", options.rows, generator)
        for store, shift in (("teacher", 0.5), ("reference", 0.0)):
            means = generator.normal(shift - 3, 1, options.rows)
            write_store(base / store, corpus, means, (lengths - 1).astype(np.int32))
        flags = ["--scores", ".", "--teacher-name", "teacher", "--ref-name", "reference"]
        measure("compute_difference_scores.py", base, *flags)
        for criterion in ("difference", "teacher", "random"):
            more = ["--data-dir", "corpus", "--criterion", criterion]
            more += ["--save", f"kept/{criterion}"]
            measure("construct_pretrain_data.py", base, *flags, *more)


def write_corpus(
    folder: Path, rows: int, generator: np.random.Generator
) -> tuple[artefact.Output, np.ndarray]:
    """(the finished corpus, lengths of its rows, [rows])."""
    output = artefact.Output(folder, "corpus", "benchmark", {"max_length": LONGEST}, {}).begin()
    lengths, files = generator.integers(2, LONGEST + 1, rows), []
    for number, start in enumerate(range(0, rows, SHARD)):
        part = lengths[start : start + SHARD]
        tokens = generator.integers(0, 60_000, part.sum()).astype(TOKEN)
        write_shard(folder / f"data_{number}", part, [tokens], TOKEN)
        domains = generator.integers(0, 3, len(part)).astype(np.uint8)
        files += [f"data_{number}.bin", f"data_{number}.idx"]
        files.append(write_side(folder, "domain", number, domains))
    output.finish(files, {"domains": ["A", "B", "C"]})
    return output, lengths


def write_store(
    folder: Path, corpus: artefact.Output, means: np.ndarray, counts: np.ndarray
) -> None:
    """A finished score store of these mean log-probabilities and counted tokens, [rows]."""
    shards = [0, -(-len(means) // SHARD)]
    content = {"type": "log-probabilities", "shards": shards, "block_size": BLOCK}
    inputs = {
        "corpus": (corpus.folder, artefact.identity(corpus.folder, "corpus", "")),
        "model": (folder / "model", {"kind": "model", "fingerprint": folder.name}),
    }
    output = artefact.Output(folder, "scores", "benchmark", content, {}, inputs).begin()
    job = job_of(content, {name: entry for name, (_, entry) in inputs.items()})
    sums, files = (means * counts).astype(np.float32), []
    for block, start in enumerate(range(0, len(means), BLOCK)):
        part = slice(start, start + BLOCK)
        files.append(f"block_{block:06d}{SUFFIX}")
        write_block(folder / files[-1], sums[part], counts[part], "CPU, fp32", job, start)
    output.finish(files, {"sequences": len(means), "first_row": 0}, {"seen_in_training": False})


def measure(program: str, base: Path, *flags: str) -> None:
    """Run a program; its time, its processor's time and its peak memory in one line."""
    started, before, peak = time.perf_counter(), os.times(), 0
    process = subprocess.Popen(
        [sys.executable, PROGRAMS / program, base, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:  # what wait4() says begins with this process's own memory
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(found) for found in re.findall(r"VmHWM:\s+(\d+)", status))])
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{program} ended with {process.returncode}")
    seconds, after = time.perf_counter() - started, os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    what = f"{program} {flags[-1] if '--criterion' in flags else ''}"
    print(f"{what:42} {seconds:6.1f} s, processor {used:6.1f} s, peak {peak / 1e3:6.0f} MB")


if __name__ == "__main__":
    run(main)
