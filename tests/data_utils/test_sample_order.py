"""The order of training data: permutations, epochs, and steps cut up in any way."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_utils.sample_order import permute, rows_of, step_samples

SIZES = st.one_of(st.integers(1, 70), st.integers(1, 5000))


@settings(max_examples=200)
@given(SIZES, st.text(max_size=4))
def test_permute_is_a_permutation(n, key):
    assert sorted(permute(np.arange(n), n, key).tolist()) == list(range(n))


def test_permute_is_a_function_of_one_place():
    """Any part of it can be asked for alone, also of a corpus far larger than memory."""
    whole = permute(np.arange(1000), 1000, "10/0")
    places = np.array([999, 0, 17, 17])
    assert permute(places, 1000, "10/0").tolist() == whole[places].tolist()
    n = 250_000_000
    far = permute(np.array([0, n - 1, n // 2]), n, "10/0")
    assert len(set(far.tolist())) == 3 and far.min() >= 0 and far.max() < n
    assert permute(np.empty(0, np.int64), 5, "x").tolist() == []


def test_permute_mixes_and_depends_on_its_key():
    n = 10_000
    rows = permute(np.arange(n), n, "10/0")
    assert abs(np.corrcoef(np.arange(n), rows)[0, 1]) < 0.05
    assert (np.abs(np.diff(rows)) == 1).mean() < 0.01
    for other in ("10/1", "11/0"):
        assert (rows == permute(np.arange(n), n, other)).mean() < 0.01
    # A run must be repeatable by a later version of the code.
    assert permute(np.arange(8), 8, "10/0").tolist() == FROZEN


FROZEN = [1, 2, 6, 5, 4, 7, 3, 0]


@settings(max_examples=100)
@given(st.integers(1, 60), st.integers(0, 200), st.integers(1, 40))
def test_without_shuffle_the_corpus_repeats(n_rows, step, global_batch):
    """Step s uses rows 512 s .. 512 s + 511, and a step may straddle epochs."""
    first = step * global_batch
    expected = [sample % n_rows for sample in range(first, first + global_batch)]
    assert rows_of(step_samples(step, global_batch), n_rows).tolist() == expected


@settings(max_examples=100)
@given(st.integers(1, 60), st.integers(0, 9), st.integers(0, 3))
def test_with_shuffle_every_epoch_has_every_row_once(n_rows, seed, epoch):
    samples = np.arange(epoch * n_rows, (epoch + 1) * n_rows)
    assert sorted(rows_of(samples, n_rows, seed).tolist()) == list(range(n_rows))


def test_epochs_and_seeds_differ():
    rows = rows_of(np.arange(3000), 1000, 10).reshape(3, 1000)
    assert (rows[0] == rows[1]).mean() < 0.02 and (rows[1] == rows[2]).mean() < 0.02
    assert (rows[0] == rows_of(np.arange(1000), 1000, 11)).mean() < 0.02


@settings(max_examples=100)
@given(st.integers(1, 50), st.integers(0, 20), st.sampled_from([None, 10]), st.data())
def test_ranks_and_micro_batches_only_cut_a_step_up(n_rows, step, seed, data):
    ranks, accumulation, micro = (data.draw(st.integers(1, 4)) for _ in range(3))
    samples = step_samples(step, ranks * accumulation * micro)
    whole = rows_of(samples, n_rows, seed)
    parts = samples.reshape(ranks, accumulation, micro)
    pieces = [rows_of(m, n_rows, seed) for rank in parts for m in rank]
    assert np.concatenate(pieces).tolist() == whole.tolist()


def test_resume_is_arithmetic():
    """Steps taken one by one are the same stream from wherever one starts, over many epochs."""
    n_rows, global_batch = 37, 8
    stream = rows_of(np.arange(100 * global_batch), n_rows, 10)
    for start in (0, 1, 41, 99):
        rows = [rows_of(step_samples(s, global_batch), n_rows, 10) for s in range(start, 100)]
        assert np.concatenate(rows).tolist() == stream[start * global_batch :].tolist()
    late = 10**9  # steps: int64 all the way
    assert rows_of(step_samples(late, 512), 1000)[0] == late * 512 % 1000
