"""Token priors: how frequent a row's tokens are in the corpus, from the token ids alone.

The prior filter of arXiv 2509.18577: the prior of a token is its share of all tokens, and a row is
judged by mean and standard deviation of the logarithms of its tokens' priors. All tokens of a row
count, the end-of-text too.
"""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from data_utils.corpus import Corpus

ROWS = 1 << 12  # read together: 90 MB of numbers at 1,025 tokens per row


def moments(corpus: Corpus, first_row: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) of the log priors of rows first_row .. first_row + count - 1.

    [count] float64 each, natural logarithms. The frequencies are those in these rows, so they are
    read twice.
    """
    means, deviations = np.empty(count), np.empty(count)
    with tqdm(total=2 * count, unit="seq", unit_scale=True, desc="priors", mininterval=1) as bar:
        numbers = frequencies(corpus, first_row, count, bar)
        log_priors = np.log(np.maximum(numbers, 1) / max(numbers.sum(), 1))
        for at, tokens, lengths in read(corpus, first_row, count, bar):
            values, starts = log_priors[tokens], np.cumsum(lengths) - lengths
            means[at] = np.add.reduceat(values, starts) / lengths
            values -= np.repeat(means[at], lengths)
            deviations[at] = np.sqrt(np.add.reduceat(np.square(values), starts) / lengths)
    return means, deviations


def frequencies(corpus: Corpus, first_row: int, count: int, bar: tqdm) -> np.ndarray:
    """How often each token id is in the rows, [highest id + 1] int64."""
    numbers = np.zeros(0, np.int64)
    for _, tokens, _ in read(corpus, first_row, count, bar):
        more = np.bincount(tokens, minlength=len(numbers))
        more[: len(numbers)] += numbers
        numbers = more
    return numbers


def read(
    corpus: Corpus, first_row: int, count: int, bar: tqdm
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(which of the rows, their tokens back to back, the length of each), a piece at a time."""
    for start in range(0, count, ROWS):
        end = min(start + ROWS, count)
        sequences = corpus.sequences(np.arange(first_row + start, first_row + end))
        lengths = np.array([len(sequence) for sequence in sequences])
        yield slice(start, end), np.concatenate(sequences), lengths
        bar.update(end - start)
