"""Language-modelling loss of a model on a held-out corpus: loss, perplexity, bits per byte.

    bash scripts/eval/lm.sh BASE_PATH --model-path results/miniplm/qwen/200M --ckpt-name 200M
    python3 eval/lm.py BASE_PATH --model-path ... --ckpt-name ...

Reads a model and a corpus; writes BASE_PATH/results/eval/lm/CKPT_NAME.json and, beside it, .npy:
the loss of every sequence (float64, corpus order). Sequences count equally, whatever their length,
and each is evaluated once: any number of processes gives the same numbers.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from cluster.processes import Processes, all_sum, end_processes, start_processes
from cluster.worker import run
from data_utils import artefact, atomic_files
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import check_name
from data_utils.tokenizer import load_tokenizer
from eval.weights import weights_hash
from pretrain.belonging import end_of_text, require_belonging
from pretrain.log_probs import mean_loss, row_log_probs
from pretrain.models import GET_MODEL, Attention, Precision, load_model, resolve_precision
from reports import terminal
from reports.page import Column, decimal, integer

PART = 512  # rows that one process evaluates together
RESAMPLES = 1000
SOURCES = (
    Column("source", "source"),
    Column("sequences", "sequences", integer),
    Column("loss", "loss", decimal),
    Column("low", "95 % from", decimal),
    Column("high", "to", decimal),
)


@dataclass
class Settings:
    """Evaluate the language-modelling loss of a model."""

    base_path: str = flag(".", "folder that contains processed_data/, checkpoints/ and results/")
    model_path: str = flag("", "the model to evaluate")
    ckpt_name: str = flag("", "name of the result; default: the last part of --model-path")
    data_dir: str = flag("processed_data/dclm/qwen-1025", "the held-out corpus")
    split: str = flag("test", "prefix of its shard files")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    save: str = flag("results/eval/lm", "folder of the results")
    limit: int = flag(0, "evaluate only the first sequences; 0: all")
    tokens_per_batch: int = flag(16_384, "tokens per forward pass, padding included")
    precision: Precision = flag("auto", "auto: fp16 on a GPU, fp32 on a CPU")
    attention: Attention = flag("sdpa", "attention of the model")
    dist_timeout: int = flag(600, "seconds that processes wait for each other")

    def __post_init__(self) -> None:
        if not self.model_path:
            raise ValueError("--model-path is missing")
        check_name("--split", self.split)
        self.ckpt_name = check_name("--ckpt-name", self.ckpt_name or Path(self.model_path).name)


@dataclass
class Evaluation:
    """The inputs, checked; rows: how many of the corpus's are evaluated."""

    corpus: Corpus
    rows: int
    eos_id: int
    model_folder: Path
    model_identity: dict
    precision: str
    folder: Path


@dataclass
class Figures:
    """Of each row, [rows] float64: loss, and what is summed up for bits per byte."""

    losses: np.ndarray  # nats per counted token, their mean
    nats: np.ndarray  # their sum
    tokens: np.ndarray  # how many are counted
    text: np.ndarray  # bytes of their text


def check(argv: list[str], world: int) -> Path:
    """Check the user's input before any process is started; returns the results' folder."""
    return prepare(parse(Settings, argv, positional="base_path")).folder


def main() -> None:
    settings = parse(Settings, positional="base_path")
    processes = start_processes(settings.dist_timeout)
    inputs = prepare(settings)
    if processes.first:
        inputs.model_identity["weights"] = weights_hash(inputs.model_folder)
    model = load_model(inputs.model_folder, inputs.precision, settings.attention).eval()
    figures = evaluate(model.to(processes.device), inputs, processes, settings.tokens_per_batch)
    if processes.first:
        write(inputs, settings, figures)
    end_processes(processes)


def prepare(settings: Settings) -> Evaluation:
    """Open and check corpus, model and tokenizer; raises InputError or ArtefactError."""
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir), settings.split)
    if not len(corpus):
        raise InputError("the corpus is empty", where=corpus.folder, fix="give another DATA_DIR")
    folder = under(base, settings.model_path)
    identity = artefact.identity(folder, "model", GET_MODEL)
    require_belonging(corpus, folder)
    eos_id = end_of_text(corpus, under(base, settings.tokenizer_path))
    precision, results = resolve_precision(settings.precision), under(base, settings.save)
    rows = min(settings.limit or len(corpus), len(corpus))
    return Evaluation(corpus, rows, eos_id, folder, identity, precision, results)


def parts(corpus: Corpus, rows: int, processes: Processes) -> Iterator[np.ndarray]:
    """This process's parts of the first rows: of similar length, the same for any number of them.

    Dealt in turns, so that all processes get as much to do.
    """
    numbers = np.arange(rows)
    numbers = numbers[np.lexsort((numbers, -corpus.lengths(numbers)))]
    starts = range(processes.rank * PART, rows, processes.world * PART)
    return (numbers[start : start + PART] for start in starts)


def evaluate(
    model: torch.nn.Module, inputs: Evaluation, processes: Processes, tokens_per_batch: int
) -> Figures:
    """All processes call it and have the figures; ArtefactError if a loss is not finite."""
    corpus, eos_id = inputs.corpus, inputs.eos_id
    tokenizer = load_tokenizer(corpus.tokenizer_folder or inputs.model_folder)
    found = Figures(*np.zeros((4, inputs.rows)))
    with tqdm(
        total=inputs.rows, unit="seq", desc="evaluate", mininterval=1, disable=not processes.first
    ) as bar:
        for rows in parts(corpus, inputs.rows, processes):
            for at, sums, counts in row_log_probs(model, corpus, rows, eos_id, tokens_per_batch):
                here = rows[at]
                found.losses[here], found.nats[here] = mean_loss(sums, counts), -sums
                found.tokens[here] = counts
                refuse_non_finite(corpus, here, found.losses)
                found.text[here] = counted_bytes(corpus.sequences(here), tokenizer, eos_id)
                bar.update(min(processes.world * len(at), inputs.rows - bar.n))
    summed = all_sum(np.concatenate(list(vars(found).values())).tolist(), processes, "the losses")
    return Figures(*np.array(summed).reshape(4, inputs.rows))


def refuse_non_finite(corpus: Corpus, rows: np.ndarray, losses: np.ndarray) -> None:
    """ArtefactError that names the first of the rows whose loss is not finite."""
    bad = rows[~np.isfinite(losses[rows])]
    if len(bad):
        raise ArtefactError(
            f"the loss is {losses[bad[0]]} at {corpus.describe(int(bad[0]))}",
            fix="use PRECISION=bf16 or fp32, or another checkpoint",
        )


def counted_bytes(rows: list[np.ndarray], tokenizer, eos_id: int) -> list[int]:
    """Bytes (UTF-8) of the text that the counted labels of each row stand for.

    That is all text but the first token of the row and of each document in it, which are no
    labels or not counted; the end-of-text itself has no text.
    """
    pieces, owner = [], []
    for number, row in enumerate(rows):
        ends = np.flatnonzero(row == eos_id)
        for piece in np.split(row, ends + 1):
            piece = piece[piece != eos_id]
            pieces += [piece.tolist(), piece[:1].tolist()]
            owner.append(number)
    texts = tokenizer.backend_tokenizer.decode_batch(pieces, skip_special_tokens=False)
    sizes = np.array([len(text.encode("utf-8")) for text in texts]).reshape(-1, 2)
    return np.bincount(owner, sizes[:, 0] - sizes[:, 1], len(rows)).astype(int).tolist()


def bootstrap(losses: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean over sequences: percentiles of the means of resampled sequences."""
    rng, n = np.random.default_rng(seed), len(losses)
    means = [losses[rng.integers(0, n, n)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def by_source(corpus: Corpus, losses: np.ndarray) -> list[dict]:
    """Number of sequences, loss and interval of each source that the corpus knows."""
    domain = corpus.side("domain", np.arange(len(losses)))
    if domain is None:
        return []
    found = []
    for number in np.unique(domain).tolist():
        mine = losses[domain == number]
        low, high = bootstrap(mine)
        row = {"source": corpus.domains[number], "sequences": len(mine)}
        found.append(row | {"loss": float(mine.mean()), "low": low, "high": high})
    return found


def write(inputs: Evaluation, settings: Settings, figures: Figures) -> None:
    """Write the results and print them."""
    losses, name, corpus = figures.losses, settings.ckpt_name, inputs.corpus
    low, high = bootstrap(losses)
    nats, text = float(figures.nats.sum()), int(figures.text.sum())
    result = {
        "model": {"path": settings.model_path, **inputs.model_identity},
        "corpus": {"path": settings.data_dir, "split": settings.split, **corpus.identity},
        "sequences": len(losses),
        "tokens": int(figures.tokens.sum()),
        "bytes": text,
        "loss": float(losses.mean()),
        "interval": [low, high],
        "perplexity": float(np.exp(losses.mean())),
        "bits_per_byte": nats / math.log(2) / text if text else None,
        "sources": by_source(corpus, losses),
        "precision": inputs.precision,
    }
    inputs.folder.mkdir(parents=True, exist_ok=True)
    with atomic_files.atomic_file(inputs.folder / f"{name}.npy") as file:
        np.save(file, losses)
    atomic_files.write_json(inputs.folder / f"{name}.json", result)
    if len(result["sources"]) > 1:
        print(terminal.table(result["sources"], SOURCES))
    bits = f", {result['bits_per_byte']:.4f} bits per byte" if text else ""
    print(
        f"{name}: loss {result['loss']:.4f} nats per token (95 %: {low:.4f} to {high:.4f}), "
        f"perplexity {result['perplexity']:.2f}{bits} over {len(losses):,} sequences -> "
        f"{inputs.folder / name}.json"
    )


if __name__ == "__main__":
    run(main)
