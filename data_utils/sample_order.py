"""The order of training data, as arithmetic: nothing to save, nothing to replay.

One endless stream: sample n is row n mod N of epoch n div N, or, with shuffle, of its keyed
permutation. Step t uses samples t G .. t G + G - 1 (G: global batch); ranks and micro-batches only
divide that range.
"""

import hashlib

import numpy as np

ROUNDS = 4


def rows_of(samples: np.ndarray, n_rows: int, shuffle_seed: int | None = None) -> np.ndarray:
    """Corpus rows of the sample numbers, [len(samples)] int64; not shuffled without a seed."""
    samples = np.asarray(samples, np.int64)
    epochs, places = np.divmod(samples, n_rows)
    if shuffle_seed is None:
        return places
    rows = np.empty_like(places)
    for epoch in np.unique(epochs):
        where = epochs == epoch
        rows[where] = permute(places[where], n_rows, f"{shuffle_seed}/{epoch}")
    return rows


def step_samples(step: int, global_batch: int) -> np.ndarray:
    """Sample numbers of a step (counted from 0), [global_batch] int64."""
    return np.arange(step * global_batch, (step + 1) * global_batch, dtype=np.int64)


def permute(places: np.ndarray, n: int, key: str) -> np.ndarray:
    """A keyed permutation of 0..n-1 applied to places, in O(1) memory.

    A Feistel network on the smallest even number of bits that holds n, walked until it lands
    inside (cycle walking: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002).
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    digest = hashlib.sha256(key.encode()).digest()
    keys = np.frombuffer(digest, "<u8", ROUNDS)
    values = places.astype(np.uint64)
    outside = np.ones(len(values), bool)
    while outside.any():
        left, right = values[outside] >> np.uint64(half), values[outside] & mask
        for round_key in keys:
            mixed = (right ^ round_key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
        values[outside] = (left << np.uint64(half)) | right
        outside = values >= n
    return values.astype(np.int64)
