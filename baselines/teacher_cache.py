"""Store a teacher's distributions over a corpus, and its scores, in one pass of the teacher.

    bash scripts/vanilla_kd/cache_teacher.sh BASE_PATH
    python3 baselines/teacher_cache.py BASE_PATH --model-path checkpoints/qwen/1.8B

Reads a corpus and a model; writes BASE_PATH/results/kd_cache/pile/qwen-1025/qwen_1.8B and the score
store that miniplm/score.py would write. Any number of processes that are given the same command
finish the job together. Format: data_utils/teacher_cache.py; TEACHER_CACHE trains on it.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import contextlib
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch

from cluster.place import die_with_launcher, launched, local_rank
from cluster.stop import Stop
from cluster.worker import run
from data_utils.artefact_writer import Output
from data_utils.elastic import Arrays, Compute, ElasticJob
from data_utils.errors import ArtefactError, InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.teacher_cache import KINDS, MOST_DRAWS, MOST_IDS, pack
from miniplm import score
from pretrain.draws import draw, most_probable
from pretrain.log_probs import counted_states, label_sums
from pretrain.models import head_weight


@dataclass
class Settings(score.Settings):
    """Store a teacher's distributions and scores."""

    cache: str = flag("results/kd_cache/pile/qwen-1025/qwen_1.8B", "folder of the stored teacher")
    kind: Literal["draws", "top-k"] = flag("draws", "top-k: the most probable ids, to compare with")
    draws: int = flag(50, "ids per token; of top-k: k")
    systematic: bool = flag(True, "systematic draws instead of independent ones")
    seed: int = flag(10, "of the draws")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.draws <= MOST_DRAWS:
            raise ValueError(f"--draws must be between 1 and {MOST_DRAWS}")


@dataclass
class Caching:
    """The scoring job beside the one of the cache."""

    scoring: score.Scoring
    job: ElasticJob


def check(argv: list[str], world: int) -> Path:
    """Check the user's input before any process is started; returns the store's folder."""
    caching = prepare(parse(Settings, argv, positional="base_path"))
    caching.scoring.job.is_done()
    caching.job.is_done()
    return caching.job.output.folder


def main() -> None:
    settings = parse(Settings, positional="base_path")
    if launched():
        die_with_launcher()
    score.stopped_by_signals(lambda stop: cache(settings, stop))


def prepare(settings: Settings) -> Caching:
    """Open and check corpus, model and tokenizer; raises InputError or ArtefactError."""
    scoring = score.prepare(settings)
    corpus, scores = scoring.corpus, scoring.job.output
    content = {
        **scores.content,
        "type": KINDS[settings.kind],
        "draws": settings.draws,
        "tokenizer": corpus.carried().get("tokenizer"),
    }
    if settings.kind == "draws":
        content |= {"systematic": settings.systematic, "seed": settings.seed}
    output = Output(
        under(base_folder(settings.base_path), settings.cache),
        "scores",
        "baselines/teacher_cache.py",
        content,
        asdict(settings),
        scores.inputs,
    )
    first_row, quiet = scoring.job.first_row, local_rank() != 0
    return Caching(scoring, ElasticJob(output, len(corpus), settings.block_size, first_row, quiet))


def cache(settings: Settings, stop: Stop) -> None:
    """Do the missing blocks of both stores together with all other workers, then finish both."""
    caching = prepare(settings)
    if local_rank() == 0 and not caching.job.is_done():
        announce(caching, settings)
    load_teacher = functools.partial(load, caching, settings, stop)
    made = caching.job.run(load_teacher, examine, flops=caching.scoring.flops)
    if made:
        tokens, entries = made.counts["counted_tokens"], made.counts["entries"]
        print(
            f"{made.folder}: {tokens:,} tokens, {entries / max(tokens, 1):.1f} ids per token on "
            "average"
        )
    score.score(
        caching.scoring, settings, stop
    )  # what another worker has not scored yet, and the manifest


def announce(caching: Caching, settings: Settings) -> None:
    """Say what the store will take, before any work."""
    corpus = caching.scoring.corpus
    shards = sum(shard.size for shard in corpus.shards)
    # About 12 distinct ids of 50 draws (Anshumann et al.); a top-k entry has 6 bytes.
    each = 6 * settings.draws if settings.kind == "top-k" else 3 * min(12, settings.draws) + 1
    print(
        f"{shards:,} tokens, about {each} bytes per token: {shards * each / 1e9:,.2f} GB in "
        f"{caching.job.output.folder}; one forward pass of the teacher",
        flush=True,
    )


def load(caching: Caching, settings: Settings, stop: Stop) -> tuple[Compute, str]:
    """(the function that computes a block of both stores, device and precision)."""
    scores = caching.scoring.job
    if not scores.is_done():
        scores.begin()
        scores.blocks.require_place()
    model, made_on = score.load_model_of(caching.scoring, settings)
    if settings.kind == "draws" and head_weight(model).shape[0] > MOST_IDS:
        raise InputError(
            "the model has more ids than a stored draw can hold",
            where=caching.scoring.model_folder,
            expected=f"at most {MOST_IDS:,}",
            found=head_weight(model).shape[0],
            fix="--kind top-k",
        )
    return functools.partial(compute, model, made_on, caching, settings, stop), made_on


def compute(
    model: torch.nn.Module,
    made_on: str,
    caching: Caching,
    settings: Settings,
    stop: Stop,
    rows: np.ndarray,
    advance: Callable[[int], object],
) -> Arrays:
    """The arrays of a block of the cache; its block of scores is published on the way."""
    scoring, head = caching.scoring, head_weight(model)
    sums, counts = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int32)
    parts: list[list[np.ndarray]] = [[] for _ in rows]
    states = counted_states(model, scoring.corpus, rows, scoring.eos_id, settings.tokens_per_batch)
    with stop.deferred(), contextlib.closing(states), torch.inference_mode():
        for batch, hidden in states:
            at = batch.at
            sums[at], counts[at] = label_sums(batch, hidden, head), batch.counts
            score.refuse_non_finite(scoring, rows[at], sums[at], counts[at])
            for row, part in enumerate(stored(batch, hidden, head, rows, caching, settings)):
                parts[at[row]] = part
            advance(len(at))
            stop.check()
    if not scoring.job.is_done():
        block = int(rows[0]) // settings.block_size
        scoring.job.publish(block, {"sum": sums, "count": counts}, made_on)
    names = ("ids", "probabilities") if settings.kind == "top-k" else ("entries", "packed")
    columns = [np.concatenate([part[i] for part in parts]) for i in range(2)]
    return {"count": counts, **dict(zip(names, columns, strict=True))}


def stored(
    batch, hidden: torch.Tensor, head: torch.Tensor, rows: np.ndarray, caching: Caching, settings
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two arrays of each row of a batch, in the batch's order."""
    width = max(batch.inputs.shape[1], 1)
    of_row = batch.places // width  # counted positions come row after row
    ends = np.cumsum(batch.counts)[:-1]
    if settings.kind == "top-k":
        ids, values = most_probable(hidden, head, settings.draws)
        arrays = ids.int().cpu().numpy(), values.half().cpu().numpy()
        return list(zip(*(np.split(array, ends) for array in arrays), strict=True))
    numbers = torch.from_numpy(caching.job.first_row + rows[batch.at])[of_row]
    places = (numbers.to(hidden.device), (batch.places % width).to(hidden.device))
    ids = draw(hidden, head, *places, settings.seed, settings.draws, systematic=settings.systematic)
    return [pack(part) for part in np.split(ids.cpu().numpy(), ends)]


def examine(arrays: Arrays, first_row: int, path: Path) -> dict[str, int]:
    """What the manifest counts of a block; ArtefactError if its arrays do not fit each other."""
    positions = int(arrays["count"].sum(dtype=np.int64))
    if "ids" in arrays:
        good, entries = len(arrays["ids"]) == positions, arrays["ids"].size
    else:
        entries = int(arrays["entries"].sum(dtype=np.int64))
        good = len(arrays["entries"]) == positions and len(arrays["packed"]) == entries
    if not good:
        raise ArtefactError("the block's arrays do not fit", where=path, fix="remove this file")
    return {"counted_tokens": positions, "entries": entries}


if __name__ == "__main__":
    run(main)
