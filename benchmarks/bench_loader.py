"""Training batches: pretrain/batches.py against a Dataset and a DataLoader.

    .venv/bin/python benchmarks/bench_loader.py [--resume-step 90000] [--runs 5]

Obvious: one sequence at a time through a torch Dataset on numpy memory maps and a DataLoader whose
collate function pads to the full length; a resumed run replays the batches before its step. Both
sides yield the same tensors: what one of 8 ranks takes of 512 sequences per step, 8 at once, from a
synthetic corpus of 1,025-token rows. Parts: STEPS steps in a row from the first, and the time to
the first batch after resuming. Beside it: what 8 GPUs ask for.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import hashlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from benchmarks import harness
from benchmarks.bench_reader import Sequences
from cluster.processes import Processes
from data_utils.corpus import Corpus
from data_utils.program import CODE_ROOT
from data_utils.shards import write_shard
from pretrain.batches import batches
from pretrain.flops import forward_flops, peak_flops
from pretrain.models import new_model
from pretrain.objective import Context
from pretrain.settings import TrainSettings

ROWS, LENGTH, STEPS, WORLD, MICRO, VOCAB, EOS = 40_000, 1025, 200, 8, 8, 151_936, 151_643
SETTINGS = TrainSettings()  # a global batch of 512, as in the paper
PER_RANK = SETTINGS.global_batch // WORLD
Micro = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    options = harness.options(__doc__, resume_step=90_000, folder="")
    if options.side:
        side = {harness.OURS: ours, harness.OBVIOUS: obvious}[options.side]
        measure(side, Path(options.folder), options.resume_step)
        return
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        lengths = generator.integers(LENGTH - 100, LENGTH + 1, ROWS)
        tokens = (generator.integers(0, EOS, n, dtype=np.int32) for n in lengths)
        write_shard(Path(folder) / "data_0", lengths, tokens, np.dtype("<i4"))
        flags = ["--folder", folder, "--resume-step", options.resume_step]
        found = harness.compare("bench_loader", __file__, flags, runs=options.runs)
    demand(found[harness.OURS]["parts"]["steps"])


def measure(side: Callable[[Corpus, int], Iterator[Micro]], folder: Path, resume: int) -> None:
    """Read STEPS steps twice, the second time counts; then the first batch after resuming."""
    torch.set_num_threads(1)
    corpus, digest = Corpus(folder), hashlib.sha256()
    count = STEPS * PER_RANK // MICRO
    for micro in itertools.islice(side(corpus, 0), count):
        digest.update(micro[0].numpy())
    started = time.perf_counter()
    for _ in itertools.islice(side(corpus, 0), count):
        pass
    steps = time.perf_counter() - started
    started = time.perf_counter()
    tokens, lengths = next(side(corpus, resume))
    first = time.perf_counter() - started
    digest.update(tokens.numpy())
    digest.update(lengths.numpy())
    parts = {"steps": steps, "first batch after resuming": first}
    harness.report(steps + first, f"SHA-256 {digest.hexdigest()[:16]}", 0, parts)


def ours(corpus: Corpus, step: int) -> Iterator[Micro]:
    """Rank 3's micro-batches from a step on, as the engine takes them."""
    processes = Processes(3, WORLD, torch.device("cpu"))
    context = Context(SETTINGS, processes, SETTINGS.plan(WORLD), corpus, EOS)
    for batch in batches(context, lambda rows: {}, VOCAB, step, SETTINGS.total_steps):
        yield from zip(batch["tokens"], batch["lengths"], strict=True)


def obvious(corpus: Corpus, step: int) -> Iterator[Micro]:
    """The same through a DataLoader; batches before the step are read and thrown away."""
    sequences = Sequences(corpus.folder, corpus.dtype)
    loader = DataLoader(sequences, MICRO, sampler=RankOrder(3), collate_fn=collate)
    yield from itertools.islice(loader, step * PER_RANK // MICRO, None)


class RankOrder(Sampler):
    """A rank's rows in the order of the engine: step by step, micro-batch by micro-batch."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __iter__(self) -> Iterator[int]:
        for first in itertools.count(self.rank * MICRO, WORLD * MICRO):
            yield from (sample % ROWS for sample in range(first, first + MICRO))


def collate(sequences: list[torch.Tensor]) -> Micro:
    """(tokens padded on the right to LENGTH, lengths)."""
    tokens = torch.full((len(sequences), LENGTH), EOS)
    for i, sequence in enumerate(sequences):
        tokens[i, : len(sequence)] = sequence
    return tokens, torch.tensor([len(sequence) for sequence in sequences])


def demand(seconds: float) -> None:
    """What a loader of ours gives, and what 8 H100 training the 200M student would take."""
    model = new_model(CODE_ROOT / "configs/models/qwen/200M.json", 0, "sdpa")
    flops = 3 * forward_flops(model, LENGTH - 1)
    taken = 8 * 0.4 * peak_flops("NVIDIA H100 80GB HBM3", "bf16") / flops / (LENGTH - 1)
    print(
        f"one process reads {STEPS * PER_RANK / seconds:,.0f} sequences/s; 8 H100 at an assumed "
        f"40 % of their peak train the 200M student on {taken:,.0f} sequences/s, {taken / 8:,.0f} "
        "a process"
    )


if __name__ == "__main__":
    main()
