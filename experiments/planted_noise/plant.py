"""Plant noise and boiler-plate into a corpus, to see what a selection makes of them.

    python3 experiments/planted_noise/plant.py BASE_PATH --data-dir CORPUS --save PLANTED \\
        --noise 0.1 --boilerplate 0.1

Reads a corpus whose sources are known; writes one of as many rows, row i in the place of row i. Of
every shard floor(SHARE x rows) rows become noise: their own tokens in a random order, end-of-text
tokens (and a beginning-of-sequence token) staying where they are. As many of another share become
boiler-plate: all the same real sequence, the longest one of --boilerplate-source (the first of the
longest). Planted rows have source names of their own. Every shard has the same shares, so a model
trained on some shards has met both at the rate of the others. Which rows, and their order of
tokens, follow from the seed: what is noise at a small share is the same noise at a larger one.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import asdict, dataclass

import numpy as np

from data_utils.artefact_writer import Output
from data_utils.corpus import MAX_DOMAINS, Corpus, write_side
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.shards import write_shard
from data_utils.tokenizer import copy_tokenizer
from miniplm.ranking import keep_count

NOISE, BOILERPLATE = "planted noise", "planted boiler-plate"  # names of the planted sources


@dataclass
class Settings:
    """Plant noise and boiler-plate into a corpus."""

    base_path: str = flag(".", "folder that contains processed_data/")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the clean corpus")
    save: str = flag("processed_data/pretrain/planted/qwen-1025", "the corpus to write")
    noise: float = flag(0.0, "share of the rows that become shuffled tokens")
    boilerplate: float = flag(0.0, "share of the rows that become one repeated sequence")
    boilerplate_source: str = flag("licences", "source that the repeated sequence is taken from")
    seed: int = flag(10, "decides which rows are planted and the order of their tokens")

    def __post_init__(self) -> None:
        for name in ("noise", "boilerplate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} {getattr(self, name)} is not a share from 0 to 1")
        if self.noise + self.boilerplate > 1:
            raise ValueError("--noise and --boilerplate add up to more than 1")
        if self.seed < 0:
            raise ValueError("--seed is negative")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir))
    check(corpus)
    names = ("noise", "boilerplate", "boilerplate_source", "seed")
    content = corpus.carried() | {name: getattr(settings, name) for name in names}
    output = Output(
        under(base, settings.save),
        "corpus",
        "experiments/planted_noise/plant.py",
        content,
        asdict(settings),
        {"corpus": (corpus.folder, corpus.identity)},
    )
    counts = output.make(lambda: plant(corpus, settings, output)).counts
    print(
        f"{output.folder}: of {counts['sequences']:,} rows {counts[NOISE]:,} are {NOISE}, "
        f"{counts[BOILERPLATE]:,} are {BOILERPLATE}"
    )


def check(corpus: Corpus) -> None:
    """The corpus must know its sources and have none of ours yet."""
    known = corpus.manifest is not None and corpus.side("domain", np.arange(1)) is not None
    if not known or not corpus.domains:
        raise InputError(
            "the corpus does not know the sources of its rows",
            where=corpus.folder,
            fix="make it with tools/process_data/tokenize_pile.py",
        )
    if {NOISE, BOILERPLATE} & set(corpus.domains):
        raise InputError(
            "the corpus has planted rows already",
            where=corpus.folder,
            expected="a clean corpus",
            found=", ".join(corpus.domains),
            fix="give the clean one, or make one with --plant-noise 0",
        )
    if len(corpus.domains) + 2 > MAX_DOMAINS:
        raise InputError(
            "the corpus has too many sources to name two more",
            where=corpus.folder,
            expected=f"at most {MAX_DOMAINS - 2}",
            found=len(corpus.domains),
            fix="plant into a corpus of fewer sources",
        )


def plant(corpus: Corpus, settings: Settings, output: Output) -> None:
    """Write all shards and the manifest."""
    domains = [*corpus.domains, NOISE, BOILERPLATE]
    row = boilerplate_row(corpus, settings.boilerplate_source) if settings.boilerplate else None
    files, planted, tokens, start = [], np.zeros(2, int), 0, 0
    for number in range(len(corpus.shards)):
        count = len(corpus.shards[number])
        places = draw(count, number, settings)
        rows = replaced_rows(corpus, start, places, row, (settings.seed, number))
        names = corpus.side("domain", np.arange(start, start + count)).copy()
        for name, place in enumerate(places):
            names[place] = len(corpus.domains) + name
            planted[name] += len(place)
        lengths = np.array([len(row) for row in rows])
        write_shard(output.folder / f"{corpus.split}_{number}", lengths, rows, corpus.dtype)
        files += [f"{corpus.split}_{number}.bin", f"{corpus.split}_{number}.idx"]
        files.append(write_side(output.folder, "domain", number, names))
        tokens, start = tokens + int(lengths.sum()), start + count
    if corpus.tokenizer_folder is not None:
        files += copy_tokenizer(corpus.tokenizer_folder, output.folder / "tokenizer")
    counts = {"shards": len(corpus.shards), "sequences": len(corpus), "tokens": tokens}
    counts |= {"domains": domains, NOISE: int(planted[0]), BOILERPLATE: int(planted[1])}
    output.finish(files, counts, {"boilerplate_row": row})


def draw(count: int, shard: int, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """(rows of a shard that become noise, rows that become boiler-plate), ascending.

    Both ends of one random order, so that neither share moves the other's rows.
    """
    order = np.random.default_rng([settings.seed, shard]).permutation(count)
    noise = keep_count(settings.noise, count)
    boilerplate = keep_count(settings.boilerplate, count)
    return np.sort(order[:noise]), np.sort(order[count - boilerplate :])


def replaced_rows(
    corpus: Corpus,
    start: int,
    places: tuple[np.ndarray, np.ndarray],
    boilerplate: int | None,
    seed: tuple[int, int],
) -> list[np.ndarray]:
    """The rows of the shard that begins at row `start`, planted ones replaced."""
    noise, repeated = (set(place.tolist()) for place in places)
    eos_id, add_bos = (corpus.manifest.content[name] for name in ("eos_id", "add_bos"))
    rows = []
    shard, _ = corpus.locate(start)
    for place in range(len(shard)):
        row = corpus.row(boilerplate if place in repeated else start + place)
        if place in noise:
            row = shuffled(row, eos_id, add_bos, np.random.default_rng([*seed, place]))
        rows.append(row)
    return rows


def shuffled(
    row: np.ndarray, eos_id: int, add_bos: bool, generator: np.random.Generator
) -> np.ndarray:
    """The tokens of a row in a random order; end-of-text and a first BOS stay in their places."""
    moving = row != eos_id
    moving[:1] &= not add_bos
    found = row.copy()
    found[moving] = generator.permutation(row[moving])
    return found


def boilerplate_row(corpus: Corpus, source: str) -> int:
    """The first of the longest rows of the source."""
    if source not in corpus.domains:
        raise InputError(
            f"no source of the corpus is named {source!r}",
            where=corpus.folder,
            expected=", ".join(corpus.domains),
            fix="give one of these as --boilerplate-source",
        )
    rows = np.arange(len(corpus))
    rows = rows[corpus.side("domain", rows) == corpus.domains.index(source)]
    if len(rows) == 0:
        raise InputError(
            f"the source {source!r} has no rows",
            where=corpus.folder,
            fix="give another --boilerplate-source",
        )
    return int(rows[np.argmax(corpus.lengths(rows))])


if __name__ == "__main__":
    run(main)
