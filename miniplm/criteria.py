"""What a selection ranks the scored sequences by, and how many of them it keeps.

A criterion is a function in CRITERIA that gives each scored row its value; the first line of its
docstring says which rows are kept. r, the method's, is the sum of the values of its two ablations,
teacher and reference. All criteria leave out the sequences without a defined r.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from miniplm.difference import FILE, PROGRAM
from miniplm.ranking import count_defined, keep_count, keep_within, pieces
from miniplm.scores import Scores


@dataclass
class Differences:
    """A store of differences; inputs: of its manifest, which tie the two models' stores to it."""

    folder: Path
    inputs: dict
    seed: int

    @cached_property
    def r(self) -> np.ndarray:
        """[n] float64: teacher's less reference's mean log-probability, NaN where undefined."""
        return np.load(self.folder / FILE, mmap_mode="r", allow_pickle=False)

    def means(self, role: str) -> np.ndarray:
        """[n] float64: mean log-probabilities of the teacher or the reference."""
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
    for at in pieces(len(values)):
        values[at][np.isnan(store.r[at])] = np.nan
    return values


CRITERIA = {rank.__name__: rank for rank in (difference, teacher, reference, random)}
SEEDED = {"random"}  # what --seed decides


def number_to_keep(
    values: np.ndarray, corpus: Corpus, first_row: int, ratio: float | None, tokens: int
) -> int:
    """floor(ratio x defined values); or, of `tokens`, as many of the highest as fit into them.

    The sequences are taken from the highest value down, until the next one would exceed `tokens`;
    that one and all below it are left out, shorter ones too.
    """
    if ratio is not None:
        keep = keep_count(ratio, count_defined(values))
        if keep == 0:
            raise InputError(
                f"RATIO={ratio:g} of {len(values)} scored sequences selects none",
                where=corpus.folder,
                fix="use a larger RATIO or score more",
            )
        return keep

    def lengths(at: slice) -> np.ndarray:
        return corpus.lengths(np.arange(first_row + at.start, first_row + at.stop))

    keep, there = keep_within(values, lengths, tokens)
    if tokens > there:
        raise InputError(
            "the scored sequences have not that many tokens",
            where=corpus.folder,
            expected=f"--tokens of at most {there}",
            found=tokens,
            fix="ask for fewer or score more",
        )
    if keep == 0:
        raise InputError(
            f"--tokens {tokens} is less than the first sequence has",
            where=corpus.folder,
            fix="ask for more",
        )
    return keep
