"""Score every sequence of a corpus with a model: log-probability sum and token count.

    python3 miniplm/score.py BASE_PATH --model-path checkpoints/qwen/1.8B
    python3 miniplm/score.py import BASE_PATH --scores-dir FOLDER

Launchers: scripts/miniplm/difference_sampling/{1.8B,104M}.sh. Reads a corpus and a model, writes
BASE_PATH/results/scores/pile/qwen-1025/qwen_1.8B. Any number of processes on any nodes that are
given the same command finish the job together (data_utils/elastic.py); run again, it resumes.
`import` makes such a store from the original's score files (miniplm/import_scores.py).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import contextlib
import functools
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from cluster.place import die_with_launcher, launched, local_rank
from cluster.stop import Stop
from cluster.worker import run
from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.elastic import Arrays, Compute, ElasticJob
from data_utils.errors import ArtefactError, InputError, Stopped
from data_utils.flags import base_folder, flag, parse, under
from miniplm import import_scores
from miniplm.scores import examine, first_bad, open_shards, seen_shards
from pretrain.belonging import end_of_text, require_belonging
from pretrain.flops import corpus_flops
from pretrain.log_probs import row_log_probs
from pretrain.models import (
    GET_MODEL,
    Attention,
    Precision,
    compile_trunk,
    load_model,
    resolve_precision,
)


@dataclass
class Settings:
    """Score a corpus with a model."""

    base_path: str = flag(".", "the folder of processed_data/, checkpoints/ and results/")
    model_path: str = flag("checkpoints/qwen/1.8B", "the model")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the corpus")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    save: str = flag("results/scores/pile/qwen-1025/qwen_1.8B", "folder of the scores")
    shards: str = flag("0:200", "shards to score, FIRST:LAST; those that do not exist are skipped")
    block_size: int = flag(8192, "sequences that are scored and published together")
    tokens_per_batch: int = flag(16_384, "padded tokens per forward pass")
    precision: Precision = flag("auto", "auto: fp16 on a GPU, fp32 on a CPU")
    attention: Attention = flag("sdpa", "attention of the model")
    compile: bool = flag(False, "torch.compile the model's trunk: pays on a GPU")
    allow_reference_data: bool = flag(False, "score sequences that the model was trained on")

    def __post_init__(self) -> None:
        if self.block_size < 1 or self.tokens_per_batch < 1:
            raise ValueError("--block-size and --tokens-per-batch must be at least 1")


@dataclass
class Scoring:
    """The inputs, checked, and the job; seen: the model was trained on some of the rows."""

    corpus: Corpus
    model_folder: Path
    eos_id: int
    seen: bool
    job: ElasticJob

    @property
    def flops(self) -> float:
        """Those of the pass over the corpus."""
        return corpus_flops(self.model_folder, self.corpus)


def check(argv: list[str], world: int) -> Path:
    """Check the user's input before any process is started; returns the store's folder.

    world: the number of processes; any number can share the work.
    """
    scoring = prepare(parse(Settings, argv, positional="base_path"))
    scoring.job.is_done()
    return scoring.job.output.folder


def main() -> None:
    if sys.argv[1:2] == ["import"]:
        import_scores.main(sys.argv[2:])
        return
    settings = parse(Settings, positional="base_path")
    if launched():
        die_with_launcher()
    stopped_by_signals(lambda stop: score(prepare(settings), settings, stop))


def stopped_by_signals(work: Callable[[Stop], None]) -> None:
    """Do the work; Stopped if a signal ends it."""
    stop = Stop(at_once=True)
    try:
        work(stop)
    except BaseException as error:
        # Whatever it became on its way: a library may turn it into an error of its own.
        if stop.received:
            name = signal.Signals(stop.received).name
            raise Stopped(f"by {name}; all finished blocks are kept") from error
        raise


def prepare(
    settings: Settings,
    store: str = "log-probabilities",
    program: str = "miniplm/score.py",
    seen_by: Callable[[Corpus, Path], str] = seen_shards,
) -> Scoring:
    """Open and check corpus, model and tokenizer; raises InputError or ArtefactError.

    store: the type of the store that `program` writes. seen_by: (corpus, model's folder) -> those
    of its shards that the model was trained on and may not score, "" if there are none.
    """
    base = base_folder(settings.base_path)
    corpus, first_row = open_shards(under(base, settings.data_dir), settings.shards)
    model_folder = under(base, settings.model_path)
    identity = artefact.identity(model_folder, "model", GET_MODEL)
    seen = seen_by(corpus, model_folder)
    if seen and not settings.allow_reference_data:
        raise InputError(
            "the model was trained on some of the sequences to be scored",
            where=corpus.folder,
            expected=f"shards other than {seen}",
            found=f"{corpus.first_shard}:{corpus.last_shard}",
            fix="choose SCORE_SHARDS outside REF_SHARDS, or add --allow-reference-data true",
        )
    require_belonging(corpus, model_folder)
    resolve_precision(settings.precision)
    content = {
        "type": store,
        "shards": [corpus.first_shard, corpus.last_shard],
        "block_size": settings.block_size,
        "tokens_per_batch": settings.tokens_per_batch,
        "precision": settings.precision,
    }
    inputs = {"corpus": (corpus.folder, corpus.identity), "model": (model_folder, identity)}
    folder = under(base, settings.save)
    output = Output(folder, "scores", program, content, asdict(settings), inputs)
    quiet = local_rank() != 0
    job = ElasticJob(output, len(corpus), settings.block_size, first_row, quiet)
    eos_id = end_of_text(corpus, under(base, settings.tokenizer_path))
    return Scoring(corpus, model_folder, eos_id, bool(seen), job)


def score(scoring: Scoring, settings: Settings, stop: Stop) -> None:
    """Do the job's missing blocks together with all other workers, then finish the store."""
    load_scorer = functools.partial(load, scoring, settings, stop)
    made = scoring.job.run(load_scorer, examine, seen_in_training=scoring.seen, flops=scoring.flops)
    if made:
        print(
            f"{made.folder}: {made.counts['sequences']:,} sequences scored, "
            f"{made.counts['without_counted_tokens']} of them without a counted token"
        )


def load(scoring: Scoring, settings: Settings, stop: Stop) -> tuple[Compute, str]:
    """(the function that scores a block's rows, device and precision)."""
    model, made_on = load_model_of(scoring, settings)
    return functools.partial(score_rows, model, scoring, settings.tokens_per_batch, stop), made_on


def load_model_of(
    scoring: Scoring, settings: Settings, open_model: Callable[..., torch.nn.Module] = load_model
) -> tuple[torch.nn.Module, str]:
    """(the model on its device, device and precision); says what is going to be done."""
    cuda = torch.cuda.is_available()
    device = torch.device(f"cuda:{local_rank()}" if cuda else "cpu")
    precision = resolve_precision(settings.precision)
    model = open_model(scoring.model_folder, precision, settings.attention).eval().to(device)
    if settings.compile:
        compile_trunk(model)
    device_name = torch.cuda.get_device_name(device) if cuda else "CPU"
    made_on = f"{device_name}, {precision}, {settings.attention}"
    made_on += ", compiled" if settings.compile else ""
    corpus, blocks = scoring.corpus, scoring.job.blocks
    print(
        f"{type(model).__name__} on {made_on}: {len(corpus):,} sequences, shards "
        f"{corpus.first_shard}:{corpus.last_shard} of {corpus.all_shards} in {corpus.folder}; "
        f"{len(blocks.missing())} of {blocks.count} blocks to do",
        flush=True,
    )
    return model, made_on


def score_rows(
    model: torch.nn.Module,
    scoring: Scoring,
    tokens_per_batch: int,
    stop: Stop,
    rows: np.ndarray,
    advance: Callable[[int], object],
) -> Arrays:
    """sum float32 and count int32 of the rows, [len(rows)] each.

    A sum that is not finite is an ArtefactError, which names the row.
    """
    sums, counts = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int32)
    batches = row_log_probs(model, scoring.corpus, rows, scoring.eos_id, tokens_per_batch)
    with stop.deferred(), contextlib.closing(batches):
        for at, batch_sums, batch_counts in batches:
            sums[at], counts[at] = batch_sums, batch_counts
            refuse_non_finite(scoring, rows[at], batch_sums, batch_counts)
            advance(len(at))
            stop.check()
    return {"sum": sums, "count": counts}


def refuse_non_finite(
    scoring: Scoring, rows: np.ndarray, sums: np.ndarray, counts: np.ndarray
) -> None:
    """ArtefactError that names the first of the rows whose sum is not finite."""
    bad = first_bad(sums, counts)
    if bad is not None:
        raise ArtefactError(
            f"the model's score is {sums[bad]} for {scoring.corpus.describe(rows[bad])}",
            where=scoring.model_folder,
            fix="use PRECISION=bf16 or fp32, or another model; finished blocks are kept",
        )


if __name__ == "__main__":
    run(main)
