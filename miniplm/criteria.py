"""What a selection ranks the rows of a corpus by, and how many of them it keeps.

A criterion is a function in CRITERIA that gives each row its value, [n] float64; the first line of
its docstring says which rows are kept, NaN is never kept. r, the method's (arXiv 2410.17215), is
the sum of the values of its two ablations, teacher and reference. No criterion that reads the
stores keeps a sequence without a defined r; those in WITHOUT_STORES know nothing of r. `proxy`
reads a store of predicted r.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import flag
from miniplm import score_file, token_priors
from miniplm.difference import FILE, PROGRAM
from miniplm.ranking import central, descending, keep_count
from miniplm.scores import Predictions, Scores


@dataclass
class Differences:
    """A store of differences; its manifest's inputs tie the two models' stores to it."""

    folder: Path
    inputs: dict

    @cached_property
    def r(self) -> np.ndarray:
        """[n] float64: teacher's less reference's mean log-probability, NaN where undefined."""
        return np.load(self.folder / FILE, mmap_mode="r", allow_pickle=False)

    def means(self, role: str) -> np.ndarray:
        """[n] float64: mean log-probabilities of the teacher or the reference (role).

        Raises an InputError if the store is not the one that the differences were made from.
        """
        fix = f"give the scores that {self.folder.name} was made from, or run {PROGRAM} again"
        scores = Scores(artefact.input_place(self.folder, self.inputs[role]), fix)
        if scores.identity["fingerprint"] != self.inputs[role]["fingerprint"]:
            raise InputError(
                f"these are not the {role}'s scores that the differences were made from",
                where=scores.folder,
                fix=fix,
            )
        return scores.means()[0]


@dataclass
class Candidates:
    """What a selection chooses from: rows first_row .. first_row + count - 1 of a corpus.

    store: their differences, for `proxy` those that a proxy predicts; None for a criterion that
    needs none.
    """

    corpus: Corpus
    first_row: int
    count: int
    choice: "Choice"
    store: Differences | Predictions | None = None
    score_file: Path | None = None

    def values(self) -> np.ndarray:
        """What the chosen criterion ranks them by, [count] float64."""
        return CRITERIA[self.choice.criterion](self)


def difference(rows: Candidates) -> np.ndarray:
    """The highest r."""
    return rows.store.r


def teacher(rows: Candidates) -> np.ndarray:
    """The highest mean log-probability under the teacher, its lowest loss."""
    return rows.store.means("teacher")


def reference(rows: Candidates) -> np.ndarray:
    """The highest loss of the reference."""
    values = rows.store.means("reference")
    return np.negative(values, out=values)


def random(rows: Candidates) -> np.ndarray:
    """A draw by --seed."""
    values = np.random.default_rng(rows.choice.seed).random(rows.count)
    values[np.isnan(rows.store.r)] = np.nan
    return values


def reference_band(rows: Candidates) -> np.ndarray:
    """The low, middle or high part of the reference's losses (--band).

    Perplexity pruning, arXiv 2405.20541. The high part is what `reference` keeps.
    """
    losses = reference(rows)
    if rows.choice.band == "middle":
        return central(losses)
    return losses if rows.choice.band == "high" else np.negative(losses, out=losses)


def temperature(rows: Candidates) -> np.ndarray:
    """A draw by --seed without replacement, with weights exp(r / --tau).

    QuRating, arXiv 2402.09739. The rows with the highest r / tau + Gumbel noise are such a draw.
    """
    noise = np.random.default_rng(rows.choice.seed).gumbel(size=rows.count)
    noise *= rows.choice.tau  # r + tau x noise has the same order and takes any small tau
    return np.add(noise, rows.store.r, out=noise)


def by_source(rows: Candidates) -> np.ndarray:
    """The highest r inside each source, whose shares stay.

    A row's value is its quantile in its source, -(rank + 1/2) / (rows of the source): the highest
    floor(alpha N) of all are alpha of each source but for the rounding.
    """
    sources = rows.corpus.side("domain", rows.first_row + np.arange(rows.count))
    if sources is None:
        raise InputError(
            "the corpus does not record the sources of its rows",
            where=rows.corpus.folder,
            fix="choose another --criterion, or tokenize text that names them",
        )
    values = np.full(rows.count, np.nan)
    for number in np.unique(sources):
        mine = np.flatnonzero(sources == number)
        order = mine[descending(rows.store.r[mine])]
        values[order] = -(np.arange(len(order)) + 0.5) / len(order)
    return values


def proxy(rows: Candidates) -> np.ndarray:
    """The highest r that a proxy predicts (miniplm/proxy.py), from its own store."""
    return rows.store.r


def prior(rows: Candidates) -> np.ndarray:
    """The middle ranks of both mean and standard deviation of the log token priors, no scores.

    arXiv 2509.18577 (miniplm/token_priors.py). A row's value is the rank farther from the middle
    of the two, so that both bands are equally wide and as wide as the share needs.
    """
    means, deviations = token_priors.moments(rows.corpus, rows.first_row, rows.count)
    return np.minimum(central(means), central(deviations))


def external(rows: Candidates) -> np.ndarray:
    """The highest of the numbers in --score-file (miniplm/score_file.py), no scores of ours."""
    return score_file.read(rows.score_file, rows.corpus, rows.first_row, rows.count)


STORED = (difference, teacher, reference, random, reference_band, temperature, by_source)
CRITERIA = {rank.__name__: rank for rank in (*STORED, proxy, prior, external)}
WITHOUT_STORES = {"prior", "external"}
SETTINGS = {"random": ["seed"], "temperature": ["seed", "tau"], "reference_band": ["band"]}
SEED = 10


@dataclass
class Choice:
    """A criterion and what it is set by."""

    criterion: Literal[*CRITERIA] = flag(
        "difference",
        " ".join(
            [
                "which sequences are kept.",
                *(f"{n}: {rank.__doc__.splitlines()[0]}" for n, rank in CRITERIA.items()),
            ]
        ),
    )
    seed: int = flag(SEED, f"for {' and '.join(n for n in SETTINGS if 'seed' in SETTINGS[n])}")
    tau: float = flag(
        1.0, "for temperature, in nats per token: towards 0 the highest r, a large one is random"
    )
    band: Literal["low", "middle", "high"] = flag("middle", "for reference_band: the part kept")
    score_file: str = flag("", "for external: .npy, .parquet or .pt with one number per row")

    def __post_init__(self) -> None:
        if not 0 < self.tau <= 1e6:
            raise ValueError(f"--tau must be above 0 and at most 1e6, not {self.tau}")
        if bool(self.score_file) != (self.criterion == "external"):
            raise ValueError("--score-file and --criterion external need each other")
        self.tau = float(f"{self.tau:g}")  # no other setting than the folder's name says

    def content(self) -> dict:
        """What of it decides the selection, for a manifest; seed is there for each criterion."""
        used = SETTINGS.get(self.criterion, [])
        set_by = {name: getattr(self, name) for name in used}
        return {"criterion": self.criterion, "seed": None} | set_by

    def folder_part(self) -> str:
        """Part of a folder's name: the criterion's settings, each with a dash in front."""
        used, name = SETTINGS.get(self.criterion, []), ""
        if self.score_file:
            name = f"-{Path(self.score_file).name}"
        if "band" in used:
            name += f"-{self.band}"
        if "tau" in used:
            name += f"-tau{self.tau:g}"
        if "seed" in used and self.seed != SEED:
            name += f"-seed{self.seed}"
        return name


def number_to_keep(
    order: np.ndarray, corpus: Corpus, first_row: int, ratio: float | None, tokens: int
) -> int:
    """floor(ratio x sequences); or, of `tokens`, as many of the highest as fit into them.

    order: the sequences with a value from the highest to the lowest, numbered from the corpus's
    first_row. They are taken in this order until the next one would exceed `tokens`; that one and
    all after it are left out, shorter ones too. Raises an InputError if none is kept or the tokens
    are more than there are.
    """
    if ratio is not None:
        keep = keep_count(ratio, len(order))
        if keep == 0:
            raise InputError(
                f"RATIO={ratio:g} of {len(order)} sequences that have a rank selects none",
                where=corpus.folder,
                fix="use a larger RATIO or score more",
            )
        return keep
    reached = corpus.lengths(first_row + order)
    np.cumsum(reached, out=reached)
    there = int(reached[-1]) if len(reached) else 0
    if tokens > there:
        raise InputError(
            "the sequences to choose from do not contain that many tokens",
            where=corpus.folder,
            expected=f"--tokens of at most {there}",
            found=tokens,
            fix="ask for fewer or score more",
        )
    keep = int(reached.searchsorted(tokens, side="right"))
    if keep == 0:
        raise InputError(
            f"--tokens {tokens} is less than the first sequence has",
            where=corpus.folder,
            fix="ask for more",
        )
    return keep
