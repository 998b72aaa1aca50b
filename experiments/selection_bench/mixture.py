"""A corpus with a wanted share of planted rows, taken from a scored pool together with its scores.

    python3 experiments/selection_bench/mixture.py BASE_PATH --pool CORPUS --pool-scores FOLDER \\
        --save MIXTURE --scores FOLDER --rows 2048 --condition junk_50

Takes the condition's shares of planted noise and planted junk, and the rest of ordinary text,
from the scored rows of the pool, in the pool's order. Which ones follows from the seed: a larger
share has all planted rows of a smaller one, and its text is part of the smaller one's. Writes the
corpus, and the scores of teacher and reference as if they had been made of it: a row's scores do
not depend on other rows, so the pool is scored once for all mixtures.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.elastic import Arrays, ElasticJob
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from experiments.planted_noise.plant import JUNK, NOISE, PLANTED
from experiments.selection_bench.bench import CONDITIONS
from miniplm.ranking import keep_count
from miniplm.scores import Scores, examine
from miniplm.shard_copy import copy_rows
from pretrain.flops import corpus_flops

PROGRAM = "experiments/selection_bench/mixture.py"
FIX = "score the pool with teacher and reference first"


@dataclass
class Settings:
    """Mix a corpus of a scored pool's rows."""

    base_path: str = flag(".", "folder that contains processed_data/ and results/")
    pool: str = flag("processed_data/pretrain/pool/smollm2-129", "the scored corpus with plants")
    pool_scores: str = flag("results/scores/pool/smollm2-129", "folder of its score stores")
    teacher_name: str = flag("smollm2_135M", "the teacher's store")
    ref_name: str = flag("llama_5M", "the reference's store")
    save: str = flag("processed_data/pretrain/mixture/smollm2-129", "the corpus to write")
    scores: str = flag("results/scores/mixture/smollm2-129", "folder of the stores to write")
    rows: int = flag(2048, "rows of the mixture")
    condition: Literal[*CONDITIONS] = flag("no_plant", "which plants it has, and how many")
    seed: int = flag(10, "decides which rows are taken")

    def __post_init__(self) -> None:
        if self.rows < 1 or self.seed < 0:
            raise ValueError("--rows is below 1 or --seed negative")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    names = (settings.teacher_name, settings.ref_name)
    stores = [Scores(under(base, settings.pool_scores) / name, FIX) for name in names]
    pool = Corpus(under(base, settings.pool))
    for store in stores:
        require_scores_of(store, pool, stores[0].shards)
    rows = choose(pool, stores[0], settings)
    mixture = write_corpus(pool, rows, under(base, settings.save), settings)
    for store in stores:
        folder = under(base, settings.scores) / store.folder.name
        write_scores(store, rows, mixture, folder, settings)


def require_scores_of(store: Scores, pool: Corpus, shards: tuple[int, int]) -> None:
    """InputError if the scores are not of these shards of the pool."""
    found = (store.manifest.input_fingerprint("corpus"), store.shards)
    expected = (pool.identity["fingerprint"], shards)
    if found != expected:
        what = "the scores are not of the pool, or of other shards than the teacher's"
        raise InputError(what, where=store.folder, expected=expected, found=found, fix=FIX)


def choose(pool: Corpus, store: Scores, settings: Settings) -> np.ndarray:
    """The scored rows that are taken, ascending; InputError if there are too few of a kind."""
    sources = pool.side("domain", store.first_row + np.arange(len(store)))
    number = {name: pool.domains.index(name) for name in PLANTED if name in pool.domains}
    is_text = ~np.isin(sources, list(number.values()))
    noise, junk = (keep_count(share, settings.rows) for share in CONDITIONS[settings.condition])
    kinds = (
        (sources == number.get(NOISE, -1), noise, NOISE),
        (sources == number.get(JUNK, -1), junk, JUNK),
        (is_text, settings.rows - noise - junk, "ordinary text"),
    )
    chosen = []
    for stream, (mine, count, name) in enumerate(kinds):
        there = np.flatnonzero(mine)
        if len(there) < count:
            raise InputError(
                f"the pool has too few rows of {name}",
                where=pool.folder,
                expected=count,
                found=len(there),
                fix="make a larger pool, or lower --rows",
            )
        chosen.append(np.random.default_rng([settings.seed, stream]).permutation(there)[:count])
    return store.first_row + np.sort(np.concatenate(chosen))


def write_corpus(pool: Corpus, rows: np.ndarray, folder: Path, settings: Settings) -> Corpus:
    """The corpus of these rows of the pool."""
    content = pool.carried() | {"rows": settings.rows, "seed": settings.seed}
    content["noise"], content["junk"] = CONDITIONS[settings.condition]
    inputs = {"corpus": (pool.folder, pool.identity)}
    output = Output(folder, "corpus", PROGRAM, content, asdict(settings), inputs)

    def copy() -> None:
        output.finish(*copy_rows(pool, rows, folder, shard_size=len(rows)))

    output.make(copy)
    return Corpus(folder)


def write_scores(
    store: Scores, rows: np.ndarray, mixture: Corpus, folder: Path, settings: Settings
) -> None:
    """The scores of these rows of a store, as a store of the mixture."""
    known = store.manifest
    blocks = [store.files.read(block)[0] for block in range(store.files.count)]
    arrays = {
        name: np.concatenate([b[name] for b in blocks])[rows - store.first_row]
        for name in blocks[0]
    }
    model = artefact.input_place(store.folder, known.inputs["model"])
    inputs = {
        "corpus": (mixture.folder, mixture.identity),
        "model": (model, {k: v for k, v in known.inputs["model"].items() if k != "path"}),
        "pool_scores": (store.folder, store.identity),
    }
    content = known.content | {"shards": [0, mixture.last_shard], "block_size": len(rows)}
    output = Output(folder, "scores", PROGRAM, content, asdict(settings), inputs)

    def taken(of: np.ndarray, advance: Callable[[int], object]) -> Arrays:
        return {name: values[of] for name, values in arrays.items()}

    job = ElasticJob(output, len(rows), len(rows), quiet=True)
    flops = corpus_flops(model, mixture)  # what scoring the mixture alone would cost
    seen = store.seen_in_training
    job.run(lambda: (taken, "the pool"), examine, seen_in_training=seen, flops=flops)


if __name__ == "__main__":
    run(main)
