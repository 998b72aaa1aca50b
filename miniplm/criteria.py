"""What a selection ranks the scored sequences by, and how many of them it keeps.

A criterion is a function in CRITERIA that gives each scored row its value, [n] float64; the first
line of its docstring says which rows are kept. r, the method's (arXiv 2410.17215), is the sum of
the values of its two ablations, teacher and reference. No criterion keeps a sequence without a
defined r.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from miniplm.difference import FILE, PROGRAM
from miniplm.ranking import keep_count
from miniplm.scores import Scores


@dataclass
class Differences:
    """A store of differences; its manifest's inputs tie the two models' stores to it."""

    folder: Path
    inputs: dict
    seed: int

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


def difference(store: Differences) -> np.ndarray:
    """The highest r."""
    return store.r


def teacher(store: Differences) -> np.ndarray:
    """The highest mean log-probability under the teacher, its lowest loss."""
    return store.means("teacher")


def reference(store: Differences) -> np.ndarray:
    """The highest loss of the reference."""
    values = store.means("reference")
    return np.negative(values, out=values)


def random(store: Differences) -> np.ndarray:
    """A draw by --seed."""
    values = np.random.default_rng(store.seed).random(len(store.r))
    values[np.isnan(store.r)] = np.nan
    return values


CRITERIA = {rank.__name__: rank for rank in (difference, teacher, reference, random)}
SEEDED = {"random"}  # what --seed decides


def number_to_keep(
    order: np.ndarray, corpus: Corpus, first_row: int, ratio: float | None, tokens: int
) -> int:
    """floor(ratio x sequences); or, of `tokens`, as many of the highest as fit into them.

    order: the scored sequences with a defined value from the highest to the lowest, numbered from
    the corpus's first_row. They are taken in this order until the next one would exceed `tokens`;
    that one and all after it are left out, shorter ones too. Raises an InputError if none is kept
    or the tokens are more than there are.
    """
    if ratio is not None:
        keep = keep_count(ratio, len(order))
        if keep == 0:
            raise InputError(
                f"RATIO={ratio:g} of {len(order)} sequences with a defined difference selects none",
                where=corpus.folder,
                fix="use a larger RATIO or score more",
            )
        return keep
    reached = corpus.lengths(first_row + order)
    np.cumsum(reached, out=reached)
    there = int(reached[-1]) if len(reached) else 0
    if tokens > there:
        raise InputError(
            "the scored sequences do not contain that many tokens",
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
