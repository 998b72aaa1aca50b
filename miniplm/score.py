"""Score every sequence of a corpus with a model: log-probability sum and token count.

    python3 miniplm/score.py BASE_PATH --model-path checkpoints/qwen/1.8B --name qwen_1.8B

Launchers: scripts/miniplm/difference_sampling/{1.8B,104M}.sh. Reads a corpus and a model, writes
BASE_PATH/results/scores/pile/qwen-1025/qwen_1.8B. Any number of processes on any nodes that are
given the same command finish the job together (data_utils/blocks.py); run again it goes on.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.start import use_project_python

    use_project_python()

import contextlib
import os
import signal
from dataclasses import asdict, dataclass

import numpy as np
import torch
from tqdm import tqdm

from data_utils import artefact
from data_utils.blocks import Blocks
from data_utils.corpus import Corpus, shard_range
from data_utils.errors import ArtefactError, InputError, Stopped
from data_utils.flags import base_folder, flag, parse, under
from data_utils.tokenizer import (
    corpus_tokenizer,
    end_of_text,
    load_tokenizer,
    tokenizer_fingerprint,
)
from miniplm.scores import SUFFIX, read_block, write_block
from pretrain.log_probs import row_log_probs
from pretrain.models import GET_MODEL, load_model, resolve_precision
from pretrain.processes import die_with_parent


@dataclass
class Settings:
    """Score a corpus with a model."""

    base_path: str = flag(".", "where processed_data/, checkpoints/ and results/ lie")
    model_path: str = flag("checkpoints/qwen/1.8B", "the model")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the corpus")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    save: str = flag("results/scores/pile/qwen-1025/qwen_1.8B", "folder of the scores")
    shards: str = flag("0:200", "shards to score, FIRST:LAST; what is there of them")
    block_size: int = flag(8192, "sequences that are scored and published together")
    tokens_per_batch: int = flag(16_384, "padded tokens the model sees at once")
    precision: str = flag("auto", "auto (fp16 on a GPU, fp32 on a CPU), fp16, bf16 or fp32")
    attention: str = flag("sdpa", "attention of the model")
    allow_reference_data: bool = flag(False, "score sequences that the reference was trained on")

    def __post_init__(self) -> None:
        if self.block_size < 1 or self.tokens_per_batch < 1:
            raise ValueError("--block-size and --tokens-per-batch must be at least 1")


@dataclass
class Job:
    """The inputs, checked, and the output."""

    corpus: Corpus
    model_folder: Path
    eos_id: int
    output: artefact.Output
    blocks: Blocks
    first_row: int
    seen_in_training: bool  # the model was trained on some of the rows


def check(argv: list[str]) -> Path:
    """Check the user's input before any process is started; returns the store's folder."""
    return prepare(parse(Settings, argv, positional="base_path")).output.folder


def main() -> None:
    settings = parse(Settings, positional="base_path")
    if "LOCAL_RANK" in os.environ:
        die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, leave)
    job = prepare(settings)
    if job.output.done:
        print(f"{job.output.folder} is there already")
        return
    begin(job)
    if job.blocks.missing():
        work(job, settings)
    finish(job)


def leave(number: int, frame: object) -> None:
    """The block in progress is dropped; all published ones stay."""
    raise Stopped(f"by {signal.Signals(number).name}; all finished blocks are kept")


def prepare(settings: Settings) -> Job:
    """Open and check corpus, model and tokenizer."""
    base = base_folder(settings.base_path)
    whole = Corpus(under(base, settings.data_dir))
    first, last = shard_range(settings.shards)
    if first >= whole.all_shards:
        raise InputError(
            f"SCORE_SHARDS={settings.shards}: the corpus has {whole.all_shards} shards",
            where=whole.folder,
            fix="choose SCORE_SHARDS below that, or tokenise with a smaller SHARD_SIZE",
        )
    corpus = Corpus(whole.folder, shards=(first, last))
    model_folder = under(base, settings.model_path)
    identity = artefact.identity(model_folder, "model", GET_MODEL)
    seen = trained_on_some(corpus, model_folder)
    if seen and not settings.allow_reference_data:
        raise InputError(
            "the model was trained on some of the sequences to be scored",
            where=corpus.folder,
            expected=f"shards other than {seen}",
            found=f"{corpus.first_shard}:{corpus.last_shard}",
            fix="choose SCORE_SHARDS outside REF_SHARDS, or add --allow-reference-data true",
        )
    tokenizer_folder = corpus_tokenizer(corpus, under(base, settings.tokenizer_path))
    same_tokenizer(corpus, model_folder)
    resolve_precision(settings.precision)
    output = artefact.Output(
        under(base, settings.save),
        "scores",
        "miniplm/score.py",
        {
            "type": "log-probabilities",
            "shards": [corpus.first_shard, corpus.last_shard],
            "block_size": settings.block_size,
            "tokens_per_batch": settings.tokens_per_batch,
            "precision": settings.precision,
        },
        asdict(settings),
        {"corpus": (corpus.folder, corpus.identity), "model": (model_folder, identity)},
    )
    if artefact.read_manifest(output.folder) is not None:
        output.begin()
    blocks = Blocks(output.folder, -(-len(corpus) // settings.block_size), SUFFIX)
    first_row = int(sum(len(s) for s in whole.shards[: corpus.first_shard]))
    eos_id = end_of_text(corpus, tokenizer_folder)
    return Job(corpus, model_folder, eos_id, output, blocks, first_row, bool(seen))


def trained_on_some(corpus: Corpus, model_folder: Path) -> str:
    """The shards of the corpus that the model was trained on if some of its rows are in them."""
    manifest = artefact.read_manifest(model_folder) or {}
    trained_on = manifest.get("report", {}).get("trained_on", {})
    source = trained_on.get("made_from", {}).get("corpus", {}).get("fingerprint")
    first, last = trained_on.get("corpus", {}).get("shards", [0, 0])
    mine = corpus.identity["fingerprint"]
    if manifest.get("inputs", {}).get("corpus", {}).get("fingerprint") == mine:
        return f"0:{corpus.all_shards}"
    if source == mine and first < corpus.last_shard and corpus.first_shard < last:
        return f"{first}:{last}"
    return ""


def same_tokenizer(corpus: Corpus, model_folder: Path) -> None:
    """Refuse a model whose tokenizer is not the corpus's, where both are known."""
    known = corpus.manifest["content"].get("tokenizer") if corpus.manifest else None
    if known is None:
        return
    found = tokenizer_fingerprint(load_tokenizer(model_folder))
    if found != known:
        raise InputError(
            "the model's tokenizer is not the corpus's",
            where=model_folder,
            expected=f"tokenizer {known[:12]}",
            found=found[:12],
            fix=f"tokenise with TOKENIZER_PATH={model_folder}, or choose the corpus's own model",
        )


def begin(job: Job) -> None:
    """Make the folder ready; workers that start together write the same settings."""
    job.output.folder.mkdir(parents=True, exist_ok=True)
    job.output.begin()


def work(job: Job, settings: Settings) -> None:
    """Load the model and compute blocks until none is missing."""
    cuda = torch.cuda.is_available()
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if cuda else "cpu")
    precision = resolve_precision(settings.precision)
    model = load_model(job.model_folder, precision, settings.attention)
    model = model.eval().to(device)
    made_on = f"{torch.cuda.get_device_name(device) if cuda else 'CPU'}, {precision}"
    corpus, size = job.corpus, settings.block_size
    print(
        f"{type(model).__name__} on {made_on}: {len(corpus):,} sequences, shards "
        f"{corpus.first_shard}:{corpus.last_shard} of {corpus.all_shards} in {corpus.folder}; "
        f"{len(job.blocks.missing())} of {job.blocks.count} blocks to do",
        flush=True,
    )
    bar = tqdm(total=len(corpus), unit="seq", desc=job.output.folder.name, mininterval=1)
    with bar, contextlib.closing(job.blocks.take()) as blocks:  # a stop gives its claim back
        for block in blocks:
            rows = np.arange(block * size, min((block + 1) * size, len(corpus)))
            done = len(corpus) - min(len(job.blocks.missing()) * size, len(corpus))
            bar.update(done - bar.n)
            sums, counts = score_rows(model, job, rows, settings.tokens_per_batch, bar)
            job.blocks.publish(block, lambda p, s=sums, c=counts: write_block(p, s, c, made_on))
        bar.update(len(corpus) - bar.n)


def score_rows(
    model: torch.nn.Module, job: Job, rows: np.ndarray, tokens_per_batch: int, bar: tqdm
) -> tuple[np.ndarray, np.ndarray]:
    """(sums float32, counts int32) of the rows; a non-finite sum stops the stage."""
    sums, counts = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int32)
    batches = row_log_probs(model, job.corpus, rows, job.eos_id, tokens_per_batch)
    for at, batch_sums, batch_counts in batches:
        sums[at], counts[at] = batch_sums, batch_counts
        bad = at[~np.isfinite(batch_sums) & (batch_counts > 0)]
        if len(bad):
            raise ArtefactError(
                f"the model's score is {sums[bad[0]]} for {job.corpus.describe(rows[bad[0]])}",
                where=job.model_folder,
                fix="use PRECISION=bf16 or fp32, or another model; finished blocks are kept",
            )
        bar.update(len(at))
    return sums, counts


def finish(job: Job) -> None:
    """Check that all blocks are there and finite, hash them and write the manifest."""
    with artefact.lock(job.output.folder, wait=True):
        if artefact.read_manifest(job.output.folder) is not None:
            return
        undefined = 0
        for block in range(job.blocks.count):
            part = read_block(job.blocks.path(block))
            bad = ~np.isfinite(part["sum"]) & (part["count"] > 0)
            if bad.any():
                raise ArtefactError(
                    f"row {int(np.flatnonzero(bad)[0])} of the block is not finite",
                    where=job.blocks.path(block),
                    fix="remove this file and run the scoring again",
                )
            undefined += int((part["count"] == 0).sum())
        job.blocks.sweep()
        names = [job.blocks.path(block).name for block in range(job.blocks.count)]
        counts = {
            "sequences": len(job.corpus),
            "first_row": job.first_row,
            "without_counted_tokens": undefined,
        }
        report = {"seen_in_training": job.seen_in_training}
        job.output.finish(names, counts, report)
        print(
            f"{job.output.folder}: {len(job.corpus):,} sequences scored, {undefined} of them "
            "without a counted token"
        )


if __name__ == "__main__":
    from data_utils.start import run

    run(main)
