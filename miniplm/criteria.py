"""What a selection ranks the scored sequences by, and how many of them it keeps.

difference: r, teacher's less reference's mean log-probability (the method). Its two halves alone
are the ablations: teacher keeps the highest mean log-probability under the teacher (its lowest
loss), reference the highest loss of the reference; r is the sum of these two values. random draws
from the same sequences. All four leave out the sequences without a defined r.
"""

from pathlib import Path

import numpy as np

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from miniplm.difference import FILE, PROGRAM
from miniplm.ranking import count_bins, keep_count, keep_within, pieces
from miniplm.scores import Scores

CRITERIA = ("difference", "teacher", "reference", "random")


def ranked_values(criterion: str, store: Path, inputs: dict, seed: int) -> np.ndarray:
    """[n] float64: what the scored rows rank by, the highest first; NaN where r is undefined.

    store: of the differences. inputs: of its manifest, which tie the two models' stores to it.
    """
    r = np.load(store / FILE, mmap_mode="r", allow_pickle=False)
    if criterion == "difference":
        return r
    if criterion == "random":
        values = np.random.default_rng(seed).random(len(r))
        for at in pieces(len(r)):
            values[at][np.isnan(r[at])] = np.nan
        return values
    fix = f"give the scores that {store.name} was made from, or run {PROGRAM} again"
    scores = Scores((store / inputs[criterion]["path"]).resolve(), fix)
    if scores.identity["fingerprint"] != inputs[criterion]["fingerprint"]:
        raise InputError(
            f"these are not the {criterion}'s scores that the differences were made from",
            where=scores.folder,
            fix=fix,
        )
    values = scores.means()
    return np.negative(values, out=values) if criterion == "reference" else values


def number_to_keep(
    values: np.ndarray, corpus: Corpus, first_row: int, ratio: float | None, tokens: int
) -> int:
    """floor(ratio x defined values); or, of `tokens`, as many of the highest as fit into them.

    The sequences are taken from the highest value down, until the next one would exceed `tokens`;
    that one and all below it are left out, shorter ones too.
    """
    if ratio is not None:
        keep = keep_count(ratio, int(count_bins(values).sum()))
        if keep == 0:
            raise InputError(
                f"RATIO={ratio:g} of {len(values)} scored sequences selects none",
                where=corpus.folder,
                fix="use a larger RATIO or score more",
            )
        return keep

    def lengths(at: slice) -> np.ndarray:
        return corpus.lengths(np.arange(first_row + at.start, first_row + at.stop))

    there = int(count_bins(values, lengths).sum())
    if tokens > there:
        raise InputError(
            "the scored sequences have not that many tokens",
            where=corpus.folder,
            expected=f"--tokens of at most {there}",
            found=tokens,
            fix="ask for fewer or score more",
        )
    keep = keep_within(values, lengths, tokens)
    if keep == 0:
        raise InputError(
            f"--tokens {tokens} is less than the first sequence has",
            where=corpus.folder,
            fix="ask for more",
        )
    return keep
