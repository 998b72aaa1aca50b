"""Score every sequence of a corpus with a model: log-probability sum and token count.

    python3 miniplm/score.py BASE_PATH --model-path checkpoints/qwen/1.8B
    python3 miniplm/score.py import BASE_PATH --scores-dir FOLDER

Launchers: scripts/miniplm/difference_sampling/{1.8B,104M}.sh. Reads a corpus and a model, writes
BASE_PATH/results/scores/pile/qwen-1025/qwen_1.8B. Any number of processes on any nodes that are
given the same command finish the job together (data_utils/blocks.py); run again it goes on.
`import` makes such a store of the original's score files (miniplm/import_scores.py).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import collections
import contextlib
import functools
import signal
from collections.abc import Iterator

import numpy as np
import torch

from cluster.failure_record import STOP_SIGNALS, die_with_launcher, launched, local_rank
from cluster.worker import run
from data_utils import artefact
from data_utils.artefact_writer import lock
from data_utils.errors import ArtefactError, Stopped
from data_utils.flags import parse
from miniplm import import_scores
from miniplm.progress import Progress
from miniplm.score_job import Job, Settings, prepare
from miniplm.scores import (
    FILL,
    describe_block,
    first_bad,
    read_block,
    store_counts,
    write_block,
)
from pretrain.flops import forward_flops, peak_flops
from pretrain.log_probs import row_log_probs
from pretrain.models import compile_trunk, load_model, resolve_precision


def check(argv: list[str], world: int) -> Path:
    """Check the user's input before any process is started; returns the store's folder.

    world: how many there will be; any number can share the work.
    """
    return prepare(parse(Settings, argv, positional="base_path")).output.folder


def main() -> None:
    if sys.argv[1:2] == ["import"]:
        import_scores.main(sys.argv[2:])
        return
    settings = parse(Settings, positional="base_path")
    if launched():
        die_with_launcher()
    stop = Stop()
    try:
        score(settings, stop)
    except BaseException as error:
        # Whatever it became on its way: a library may turn it into an error of its own.
        if stop.number:
            name = signal.Signals(stop.number).name
            raise Stopped(f"by {name}; all finished blocks are kept") from error
        raise


def score(settings: Settings, stop: "Stop") -> None:
    """Do the job's missing blocks together with all other workers, then finish the store."""
    job = prepare(settings)
    if job.output.done:
        print(f"{job.output.folder} is there already")
        return
    with lock(job.output.folder, wait=True):  # of two jobs the second is refused
        job.output.begin()
    job.check_present()
    if job.blocks.missing():
        job.blocks.require_place()
        work(job, settings, stop)
    finish(job)


class Stop:
    """A signal ends the program: at once, or, while a block is computed, between two batches.

    The block in progress is dropped; all published ones stay. An exception in the middle of a batch
    could come up in another thread's or a destructor's code and be lost there.
    """

    def __init__(self) -> None:
        self.number, self.in_block = 0, False
        for number in STOP_SIGNALS:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: object) -> None:
        if self.number:  # a second one would cut off the first one's cleaning up
            return
        self.number = number
        if not self.in_block:
            self.check()

    def check(self) -> None:
        """Leave if a signal has come; also where a library has swallowed the exception."""
        if self.number:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def between_batches(self) -> Iterator[None]:
        """Inside, only check() ends the program."""
        self.in_block = True
        try:
            yield
        finally:
            self.in_block = False
        self.check()


def work(job: Job, settings: Settings, stop: Stop) -> None:
    """Load the model and compute blocks until none is missing."""
    model, device_name, precision = load(job, settings)
    made_on = f"{device_name}, {precision}, {settings.attention}"
    made_on += ", compiled" if settings.compile else ""
    corpus = job.corpus
    print(
        f"{type(model).__name__} on {made_on}: {len(corpus):,} sequences, shards "
        f"{corpus.first_shard}:{corpus.last_shard} of {corpus.all_shards} in {corpus.folder}; "
        f"{len(job.blocks.missing())} of {job.blocks.count} blocks to do",
        flush=True,
    )
    flops, peak = forward_flops(model, corpus.max_length), peak_flops(device_name, precision)
    progress = Progress(job.blocks, job.block_size, len(corpus), flops, peak)
    # Closing the generator gives the claim back when a signal ends the work.
    with progress, contextlib.closing(job.blocks.take()) as blocks:
        for block in blocks:
            stop.check()
            key, first_row, _ = job.place(block)
            with stop.between_batches():
                scores = score_rows(model, job, block, settings.tokens_per_batch, progress, stop)
            write = functools.partial(
                write_block,
                values=scores[0],
                counts=scores[1],
                made_on=made_on,
                job=key,
                first_row=first_row,
            )
            job.blocks.publish(block, write)


def load(job: Job, settings: Settings) -> tuple[torch.nn.Module, str, str]:
    """(the model on its device, the device's name, the precision)."""
    cuda = torch.cuda.is_available()
    device = torch.device(f"cuda:{local_rank()}" if cuda else "cpu")
    precision = resolve_precision(settings.precision)
    model = load_model(job.model_folder, precision, settings.attention).eval().to(device)
    if settings.compile:
        compile_trunk(model)
    return model, torch.cuda.get_device_name(device) if cuda else "CPU", precision


def score_rows(
    model: torch.nn.Module,
    job: Job,
    block: int,
    tokens_per_batch: int,
    progress: Progress,
    stop: Stop,
) -> tuple[np.ndarray, np.ndarray]:
    """(sums float32, counts int32) of a block's rows; a non-finite sum stops the stage."""
    rows = job.rows(block)
    sums, counts = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int32)
    lengths = job.corpus.lengths(rows)
    progress.start_block(len(rows), int(lengths.sum()))
    batches = row_log_probs(model, job.corpus, rows, job.eos_id, tokens_per_batch)
    with contextlib.closing(batches):
        for at, batch_sums, batch_counts in batches:
            sums[at], counts[at] = batch_sums, batch_counts
            bad = first_bad(batch_sums, batch_counts)
            if bad is not None:
                raise ArtefactError(
                    f"the model's score is {batch_sums[bad]} for "
                    f"{job.corpus.describe(rows[at[bad]])}",
                    where=job.model_folder,
                    fix="use PRECISION=bf16 or fp32, or another model; finished blocks are kept",
                )
            progress.add(len(at), int(lengths[at].sum()))
            stop.check()
    return sums, counts


def finish(job: Job) -> None:
    """Check that all blocks are there and finite, hash them and write the manifest."""
    with lock(job.output.folder, wait=True):
        if artefact.read_manifest(job.output.folder) is not None:
            return
        undefined, counted, made_on = 0, 0, collections.Counter()
        paths = [job.blocks.path(block) for block in range(job.blocks.count)]
        for block, path in enumerate(paths):
            part = read_block(path, *job.place(block))
            bad = first_bad(part["sum"], part["count"])
            if bad is not None:
                row = f"row {job.first_row + int(job.rows(block)[bad])}"
                raise ArtefactError(
                    f"the score of {row} is {part['sum'][bad]}", where=path, fix=FILL.format("")
                )
            undefined += int((part["count"] == 0).sum())
            counted += int(part["count"].sum(dtype=np.int64))
            made_on[describe_block(path)["made_on"]] += 1
        job.blocks.sweep()
        counts = store_counts(
            len(job.corpus), job.first_row, undefined, counted, job.seen_in_training
        )
        report = {"blocks_made_on": dict(made_on)}
        job.output.finish([path.name for path in paths], counts, report)
        print(
            f"{job.output.folder}: {len(job.corpus):,} sequences scored, {undefined} of them "
            "without a counted token"
        )


if __name__ == "__main__":
    run(main)
