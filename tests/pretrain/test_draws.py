"""pretrain/draws.py: draws are unbiased, depend on their place alone, and top-k is a sort.

.venv/bin/python -m pytest tests/pretrain/test_draws.py
"""

import pytest
import torch

from pretrain.draws import draw, most_probable, uniforms

VOCAB = 40


def teacher(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 5, generator=generator)
    return hidden, torch.randn(VOCAB, 5, generator=generator)


def counts(ids):
    return torch.zeros(len(ids), VOCAB).scatter_add_(1, ids, torch.ones(ids.shape))


@pytest.mark.parametrize("systematic", [True, False])
def test_the_mean_of_the_drawn_target_is_the_distribution(systematic):
    hidden, head = teacher()
    t, rows, positions = (hidden @ head.T).softmax(1), torch.arange(6), torch.full((6,), 7)
    draws, seeds = 10, 1000
    target = torch.stack(
        [
            counts(draw(hidden, head, rows, positions, seed, draws, systematic=systematic)) / draws
            for seed in range(seeds)
        ]
    )
    part = (t * draws) % 1  # a systematic count is its whole part, or with this chance 1 more
    variance = part * (1 - part) / draws**2 if systematic else t * (1 - t) / draws
    error = (variance / seeds).sqrt()
    assert ((target.mean(dim=0) - t).abs() <= 4.5 * error + 1e-6).all()
    if systematic:
        assert ((target * draws - t * draws).abs() < 1 + 1e-4).all()


def test_draws_depend_on_seed_row_and_position_alone():
    hidden, head = teacher()
    rows, positions = torch.tensor([5, 900_000_000_000, 7, 7, 1, 2]), torch.arange(6)
    all_of_them = draw(hidden, head, rows, positions, 3, 12, systematic=False)
    for part in (slice(2, 3), slice(3, 6)):
        alone = draw(hidden[part], head, rows[part], positions[part], 3, 12, systematic=False)
        assert torch.equal(alone, all_of_them[part])
    assert not torch.equal(all_of_them, draw(hidden, head, rows, positions, 4, 12))


def test_uniforms_are_uniform_and_differ_by_row_position_and_number():
    rows, positions = torch.arange(200).repeat_interleave(50), torch.arange(50).repeat(200)
    values = uniforms(1, rows, positions, 4)
    assert len(values.unique()) == values.numel() and 0 <= values.min() and values.max() < 1
    found = torch.histc(values, 20, 0, 1)
    expected = values.numel() / 20
    assert ((found - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees, p 0.001


def test_many_draws_come_near_the_distribution():
    hidden, head = teacher()
    place = torch.arange(6)
    ids = draw(hidden, head, place, place, 0, 100_000)
    assert torch.allclose(counts(ids) / 100_000, (hidden @ head.T).softmax(1), atol=2e-5)


def test_most_probable_is_a_sort():
    hidden, head = teacher(300)
    ids, probabilities = most_probable(hidden, head, 7)
    expected = (hidden @ head.T).softmax(1).sort(dim=1, descending=True)
    assert torch.equal(ids, expected.indices[:, :7])
    assert torch.allclose(probabilities, expected.values[:, :7], atol=1e-6)
