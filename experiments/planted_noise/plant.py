"""Plant noise, junk and boiler-plate into a corpus, to see what a selection makes of them.

    python3 experiments/planted_noise/plant.py BASE_PATH --data-dir CORPUS --save PLANTED \\
        --noise 0.1 --boilerplate 0.1 --junk 0.2 --junk-dir JUNK_CORPUS

Reads a corpus whose sources are known and replaces some of its rows. In every shard
floor(SHARE x rows) rows become noise: their own tokens in a random order, except that end-of-text
and beginning-of-sequence tokens keep their places. By --boilerplate, rows become copies of the
first of the longest rows of --boilerplate-source. By --junk, they become rows of another corpus,
each a different one: of text that get_pile.py --plant junk --plant-noise 1 made. All get source
names of their own. What is noise at a small share is the same noise at a larger one.
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
from data_utils.corpus import Corpus, write_side
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.shards import write_shard
from data_utils.tokenizer import copy_tokenizer
from miniplm.ranking import keep_count

NOISE, JUNK, BOILERPLATE = "planted noise", "planted junk", "planted boiler-plate"
PLANTED = (NOISE, BOILERPLATE, JUNK)  # names of the planted sources, in the order of their numbers


@dataclass
class Settings:
    """Plant noise and boiler-plate into a corpus."""

    base_path: str = flag(".", "folder that contains processed_data/")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the clean corpus")
    save: str = flag("processed_data/pretrain/planted/qwen-1025", "the corpus to write")
    noise: float = flag(0.0, "share of the rows that become shuffled tokens")
    boilerplate: float = flag(0.0, "share of the rows that become one repeated sequence")
    boilerplate_source: str = flag("licences", "source that the repeated sequence is taken from")
    junk: float = flag(0.0, "share of the rows that become rows of --junk-dir")
    junk_dir: str = flag("processed_data/pretrain/junk/qwen-1025", "corpus of junk")
    seed: int = flag(10, "decides which rows are planted and the order of their tokens")

    def __post_init__(self) -> None:
        shares = (self.noise, self.boilerplate, self.junk)
        if not (min(shares) >= 0 and sum(shares) <= 1):
            what = "--noise, --boilerplate and --junk are shares"
            raise ValueError(f"{what}: not negative, at most 1 in all")
        if self.seed < 0:
            raise ValueError("--seed is negative")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir))
    check(corpus)
    names = ("noise", "boilerplate", "boilerplate_source", "junk", "seed")
    content = corpus.carried() | {name: getattr(settings, name) for name in names}
    inputs = {"corpus": (corpus.folder, corpus.identity)}
    junk = open_junk(corpus, under(base, settings.junk_dir)) if settings.junk else None
    if junk:
        inputs["junk"] = (junk.folder, junk.identity)
    program, folder = "experiments/planted_noise/plant.py", under(base, settings.save)
    output = Output(folder, "corpus", program, content, asdict(settings), inputs)
    counts = output.make(lambda: plant(corpus, junk, settings, output)).counts
    print(f"{folder}: rows of {', '.join(f'{name} {counts[name]:,}' for name in PLANTED)}")


def check(corpus: Corpus) -> None:
    """InputError if the corpus does not know its sources or has planted rows already."""
    if not corpus.domains:
        what = "the corpus does not know the sources of its rows"
        fix = "make it with tools/process_data/tokenize_pile.py"
        raise InputError(what, where=corpus.folder, fix=fix)
    if set(PLANTED) & set(corpus.domains):
        fix = "give the clean one, or make one with --plant-noise 0"
        raise InputError("the corpus has planted rows already", where=corpus.folder, fix=fix)


def open_junk(corpus: Corpus, folder: Path) -> Corpus:
    """The corpus of junk; InputError if it was tokenized otherwise than the clean one."""
    junk = Corpus(folder)
    for name in ("tokenizer", "eos_id", "max_length", "add_bos"):
        if junk.carried().get(name) != corpus.carried().get(name):
            raise InputError(
                f"the junk was tokenized with another {name}",
                where=folder,
                expected=corpus.carried().get(name),
                found=junk.carried().get(name),
                fix="tokenize it as the corpus was",
            )
    return junk


def junk_rows(junk: Corpus | None, count: int, seed: int) -> list[np.ndarray]:
    """So many different rows of junk, drawn by the seed; InputError if there are fewer."""
    if junk is None:
        return []
    if count > len(junk):
        fix = "make more (get_pile.py --plant junk --plant-noise 1 with more --local-bytes)"
        what = "there are not enough rows of junk"
        raise InputError(what, where=junk.folder, expected=count, found=len(junk), fix=fix)
    chosen = np.random.default_rng(seed).permutation(len(junk))[:count]
    return [junk.row(row) for row in chosen]


def plant(corpus: Corpus, junk: Corpus | None, settings: Settings, output: Output) -> None:
    """Write all shards and the manifest."""
    known, folder = corpus.manifest.content, output.folder
    copied = boilerplate_row(corpus, settings.boilerplate_source) if settings.boilerplate else None
    needed = sum(keep_count(settings.junk, len(shard)) for shard in corpus.shards)
    replacements = iter(junk_rows(junk, needed, settings.seed))
    files, planted, tokens, start = [], np.zeros(len(PLANTED), int), 0, 0
    for number, shard in enumerate(corpus.shards):
        numbers = np.arange(start, start + len(shard))
        rows = [corpus.row(row) for row in numbers]
        sources = corpus.side("domain", numbers).copy()
        places = draw(len(shard), number, settings)
        for kind, place in enumerate(places):
            sources[place] = len(corpus.domains) + kind
            planted[kind] += len(place)
        for place in places[0].tolist():
            generator = np.random.default_rng([settings.seed, number, place])
            rows[place] = shuffled(rows[place], known["eos_id"], known["add_bos"], generator)
        for place in places[1]:
            rows[place] = corpus.row(copied)
        for place in places[2]:
            rows[place] = next(replacements)
        lengths = np.array([len(row) for row in rows])
        write_shard(folder / f"{corpus.split}_{number}", lengths, rows, corpus.dtype)
        files += [f"{corpus.split}_{number}.bin", f"{corpus.split}_{number}.idx"]
        files.append(write_side(folder, "domain", number, sources))
        tokens, start = tokens + int(lengths.sum()), start + len(shard)
    if corpus.tokenizer_folder is not None:
        files += copy_tokenizer(corpus.tokenizer_folder, folder / "tokenizer")
    counts = {
        "shards": len(corpus.shards),
        "sequences": len(corpus),
        "tokens": tokens,
        "domains": [*corpus.domains, *PLANTED],
        **dict(zip(PLANTED, planted.tolist(), strict=True)),
    }
    output.finish(files, counts, {"boilerplate_row": copied})


def draw(count: int, shard: int, settings: Settings) -> list[np.ndarray]:
    """Rows of a shard that become noise, boiler-plate and junk, each ascending.

    Noise and boiler-plate are the two ends of one random order, so that neither share moves the
    other's rows; junk comes after the noise.
    """
    order = np.random.default_rng([settings.seed, shard]).permutation(count)
    shares = (settings.noise, settings.boilerplate, settings.junk)
    noise, boilerplate, junk = (keep_count(share, count) for share in shares)
    places = order[:noise], order[count - boilerplate :], order[noise : noise + junk]
    return [np.sort(place) for place in places]


def shuffled(
    row: np.ndarray, eos_id: int, add_bos: bool, random: np.random.Generator
) -> np.ndarray:
    """The tokens of a row in a random order; end-of-text and a first BOS stay in their places."""
    moving = row != eos_id
    moving[:1] &= not add_bos
    found = row.copy()
    found[moving] = random.permutation(row[moving])
    return found


def boilerplate_row(corpus: Corpus, source: str) -> int:
    """The first of the longest rows of the source."""
    numbers = [number for number, name in enumerate(corpus.domains) if name == source]
    rows = np.flatnonzero(np.isin(corpus.side("domain", np.arange(len(corpus))), numbers))
    if len(rows) == 0:
        raise InputError(
            f"no row of the corpus is from the source {source!r}",
            where=corpus.folder,
            fix=f"give another --boilerplate-source, of {', '.join(corpus.domains)}",
        )
    return int(rows[np.argmax(corpus.lengths(rows))])


if __name__ == "__main__":
    run(main)
