"""Seconds and peak memory of the two programs of difference sampling on many scores.

    .venv/bin/python benchmarks/large_scores.py [--rows 20000000] [--folder FOLDER]

A synthetic corpus of short rows, and the score stores of a teacher and a reference. Each program
runs in a process of its own.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import argparse
import os
import subprocess
import tempfile
import time

import numpy as np

from benchmarks import harness
from benchmarks.bench_selection import make_input
from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.elastic import ElasticJob
from data_utils.program import CODE_ROOT
from miniplm.scores import examine

BLOCK = 8192
PROGRAMS = CODE_ROOT / "scripts/miniplm/difference_sampling"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--folder", default=None, help="folder for the input")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        base, generator = Path(name), np.random.default_rng(0)
        corpus = base / "corpus"
        corpus.mkdir()
        make_input(corpus, options.rows, tokens=8)
        counts = (Corpus(corpus).lengths(np.arange(options.rows)) - 1).astype(np.int32)
        for store, shift in (("teacher", 0.5), ("reference", 0.0)):
            means = generator.normal(shift - 3, 1, options.rows)
            save_scores(base / store, corpus, means, counts)
        flags = ["--scores", ".", "--teacher-name", "teacher", "--ref-name", "reference"]
        measure("compute_difference_scores.py", base, *flags)
        for criterion in ("difference", "teacher", "random"):
            more = ["--data-dir", "corpus", "--criterion", criterion]
            more += ["--save", f"kept/{criterion}"]
            measure("construct_pretrain_data.py", base, *flags, *more)


def save_scores(folder: Path, corpus: Path, means: np.ndarray, counts: np.ndarray) -> None:
    """A finished score store of these mean log-probabilities and counted tokens, [rows]."""
    content = {"type": "log-probabilities", "shards": [0, 1], "block_size": BLOCK}
    inputs = {
        "corpus": (corpus, artefact.identity(corpus, "corpus", "")),
        "model": (folder / "model", {"kind": "model", "fingerprint": folder.name}),
    }
    output = Output(folder, "scores", "benchmark", content, {}, inputs)
    sums = (means * counts).astype(np.float32)

    def block(rows: np.ndarray, _: object) -> dict[str, np.ndarray]:
        return {"sum": sums[rows], "count": counts[rows]}

    job = ElasticJob(output, len(means), BLOCK)
    job.run(lambda: (block, "CPU, fp32"), examine, seen_in_training=False)


def measure(program: str, base: Path, *flags: str) -> None:
    """Run a program; print its time, its processor time and its peak memory in one line."""
    started, before, peak = time.perf_counter(), os.times(), 0
    process = subprocess.Popen(
        [sys.executable, PROGRAMS / program, base, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        peak = max(peak, harness.peak_memory(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{program} ended with {process.returncode}")
    seconds, after = time.perf_counter() - started, os.times()
    used = sum(after[2:4]) - sum(before[2:4])
    what = f"{program} {flags[-1] if '--criterion' in flags else ''}"
    print(f"{what:42} {seconds:6.1f} s, processor {used:6.1f} s, peak {peak / 1e6:6.0f} MB")


if __name__ == "__main__":
    run(main)
