"""pretrain/policy_loss.py against enumeration of all continuations, double loops and toy training.

.venv/bin/python -m pytest tests/pretrain/test_policy_loss.py
"""

import itertools
import math

import pytest
import torch

from pretrain.policy_loss import advantages, log_mix, policy_loss, policy_rule, returns

FREE = 1e9  # a clip that clips nothing


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Tables:
    """Student and teacher as tables of logits: a row for each prefix, V ids, T tokens."""

    def __init__(self, vocab: int, length: int, seed: int = 0) -> None:
        self.vocab, self.length = vocab, length
        sizes = [vocab**t for t in range(length)]
        self.starts = [sum(sizes[:t]) for t in range(length)]
        self.student = drawn(sum(sizes), vocab, seed=seed).requires_grad_()
        self.teacher = drawn(sum(sizes), vocab, seed=seed + 1)
        self.eye = torch.eye(vocab, dtype=torch.float64)
        self.all = torch.tensor(list(itertools.product(range(vocab), repeat=length)))

    def places(self, tokens: torch.Tensor) -> torch.Tensor:
        """The tables' row at each position of tokens [N, T]."""
        number, found = torch.zeros(len(tokens), dtype=torch.int64), []
        for t in range(self.length):
            found.append(self.starts[t] + number)
            number = number * self.vocab + tokens[:, t]
        return torch.stack(found, dim=1)

    def log_probs(self, table: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        rows = table.log_softmax(1)[self.places(tokens)]
        return rows.gather(2, tokens[..., None]).squeeze(2)

    def kl(self) -> torch.Tensor:
        """KL(q || p) of whole continuations, by enumeration."""
        log_q = self.log_probs(self.student, self.all).sum(1)
        return (log_q.exp() * (log_q - self.log_probs(self.teacher, self.all).sum(1))).sum()

    def exact_gradient(self) -> torch.Tensor:
        return torch.autograd.grad(self.kl(), self.student)[0]

    def loss(self, tokens, weights, advantage, log_b, clip=FREE):
        """policy_loss with these weights, advantages and log-probabilities of b, each [N, T]."""
        at = self.places(tokens).flatten()
        parts = {"labels": tokens, "log_b": log_b, "advantage": advantage}
        sampled = {name: values.detach().flatten() for name, values in parts.items()}
        weights = weights.detach().flatten()
        return policy_loss(
            self.student[at], self.eye, weights, sampled, self.teacher[at], self.eye, clip
        )

    def gradient(self, *arguments, **options) -> torch.Tensor:
        return torch.autograd.grad(self.loss(*arguments, **options)[0], self.student)[0]

    def scores(self, tokens, mix):
        """(log q, log b, reward) of each token."""
        log_q, log_p = (self.log_probs(m, tokens).detach() for m in (self.student, self.teacher))
        return log_q, log_mix(log_q, log_p, mix), log_p - log_q


@pytest.mark.parametrize("vocab, length", [(3, 1), (5, 2), (3, 3)])
def test_the_expected_gradient_is_that_of_the_exact_kl(vocab, length):
    """Sampling from q; the inclusive return counts the single step twice."""
    tables = Tables(vocab, length)
    log_q, _, reward = tables.scores(tables.all, 0.0)
    chance = log_q.sum(1, keepdim=True).exp().expand_as(log_q)
    exact, none = tables.exact_gradient(), torch.zeros_like(reward)
    found = tables.gradient(tables.all, chance, returns(reward), log_q)
    assert torch.allclose(found, exact, rtol=0, atol=1e-10) and exact.norm() > 0.1
    single = tables.gradient(tables.all, chance, none, log_q)
    twice = tables.gradient(tables.all, chance, returns(reward, inclusive=True), log_q)
    assert torch.allclose(twice, exact + single, rtol=0, atol=1e-10)
    # Without the single step the inclusive return alone is the whole gradient.
    assert torch.allclose(twice - single, exact, rtol=0, atol=1e-10)
    assert length == 1 or not torch.allclose(single, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("vocab, length", [(4, 1), (5, 2), (3, 3)])
def test_under_the_mix_whole_products_are_exact_and_the_tokens_own_weight_is_near(vocab, length):
    tables, mix = Tables(vocab, length, seed=3), 0.2
    log_q, log_b, reward = tables.scores(tables.all, mix)
    chance = log_b.sum(1, keepdim=True).exp().expand_as(log_b)
    exact, product = tables.exact_gradient(), (log_q - log_b).cumsum(1).exp()
    none, before = torch.zeros_like(reward), product / (log_q - log_b).exp()
    single = tables.gradient(tables.all, chance, none, log_b)
    weighted = tables.gradient(tables.all, chance * before, none, log_b)
    # Relative to q the ratio is 1: the return carries all of the weights.
    long = tables.gradient(tables.all, chance, returns(reward * product), log_q) - single
    assert torch.allclose(weighted + long, exact, rtol=0, atol=1e-10)
    found = tables.gradient(tables.all, chance, returns(reward), log_b)
    if length == 1:
        assert torch.allclose(found, exact, rtol=0, atol=1e-10)
    assert torch.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.95


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("gamma", [1.0, 0.95])
def test_returns_are_those_of_a_double_loop(inclusive, gamma):
    reward = drawn(3, 7)
    found, mean = (
        returns(reward, gamma, inclusive=inclusive),
        advantages(reward, gamma, inclusive=inclusive),
    )
    for n, t in itertools.product(range(3), range(7)):
        first = t if inclusive else t + 1
        terms = [gamma ** (k - first) * float(reward[n, k]) for k in range(first, 7)]
        assert float(found[n, t]) == pytest.approx(sum(terms), abs=1e-12)
        assert float(mean[n, t]) == pytest.approx(sum(terms) / max(len(terms), 1), abs=1e-12)
    constant = advantages(torch.full((2, 5), -3.0), inclusive=inclusive)
    assert constant[:, :4].eq(-3).all() and constant[:, 4].eq(-3 if inclusive else 0).all()


def test_whitening_makes_the_rewards_scale_irrelevant():
    reward = drawn(6, 9)
    found = advantages(reward, 0.95, inclusive=True, whiten=True)
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.var(correction=0)) == pytest.approx(1, abs=1e-6)
    doubled = advantages(2 * reward, 0.95, inclusive=True, whiten=True)
    assert torch.allclose(found, doubled, atol=1e-6)


@pytest.mark.parametrize(
    "advantage, ratio, moves",
    [(1, 1.3, False), (1, 0.7, True), (-1, 1.3, True), (-1, 0.7, False), (1, 1.1, True)],
)
def test_clipping_by_hand(advantage, ratio, moves):
    """One position, q = p, so that only the policy gradient is there."""
    logits = drawn(1, 4).requires_grad_()
    log_q = logits.detach().log_softmax(1)
    label, eye = torch.tensor([2]), torch.eye(4, dtype=torch.float64)
    sampled = {"labels": label, "advantage": torch.tensor([float(advantage)]).double()}
    sampled["log_b"] = log_q[0, label] - math.log(ratio)
    weights = torch.ones(1, dtype=torch.float64)
    loss, figures = policy_loss(logits, eye, weights, sampled, logits.detach(), eye, 0.2)
    (found,) = torch.autograd.grad(loss, logits)
    held = min(max(ratio, 0.8), 1.2)
    assert float(loss.detach()) == pytest.approx(max(-advantage * ratio, -advantage * held))
    assert float(figures["clipped"]) == (not moves)
    expected = -advantage * ratio * (torch.nn.functional.one_hot(label, 4) - log_q.exp())
    assert torch.allclose(found, expected * moves, atol=1e-12)


def autograd_loss(logits, teacher, sampled, clip):
    """The formula with whole logits, term by term."""
    log_q, log_p = logits.log_softmax(1), teacher.log_softmax(1)
    chosen = log_q.gather(1, sampled["labels"][:, None]).squeeze(1)
    ratio, advantage = (chosen - sampled["log_b"]).exp(), sampled["advantage"]
    pg = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
    return pg + (log_q.exp() * (log_q - log_p)).sum(1)


def some_tokens(count=40, vocab=50, size=8):
    parts = [drawn(count, size), drawn(vocab, size, seed=1), drawn(count, size, seed=2)]
    labels = torch.arange(count) % vocab
    log_q = (parts[0] @ parts[1].T).log_softmax(1).gather(1, labels[:, None]).squeeze(1)
    log_b = log_q + drawn(count, seed=3) * 0.3
    return parts, {"labels": labels, "log_b": log_b, "advantage": 5 * drawn(count, seed=4)}


def test_both_gradients_are_those_of_whole_logits():
    (hidden, head, teacher), sampled = some_tokens()
    weights = torch.rand(40, dtype=torch.float64)
    hidden.requires_grad_(), head.requires_grad_()
    loss, figures = policy_loss(hidden, head, weights, sampled, teacher, head.detach(), 0.2)
    each = autograd_loss(hidden @ head.T, teacher @ head.detach().T, sampled, 0.2)
    expected = (weights * each).sum()
    assert float(loss.detach() - expected.detach()) == pytest.approx(0, abs=1e-10)
    total = figures["pg_loss"] + figures["single_step"]
    assert float(total) == pytest.approx(float(loss.detach()), abs=1e-10)
    for found, right in zip(
        torch.autograd.grad(loss, (hidden, head)),
        torch.autograd.grad(expected, (hidden, head)),
        strict=True,
    ):
        assert torch.allclose(found, right, rtol=0, atol=1e-10)
    assert 0 < float(figures["clipped"]) < float(weights.sum())


def test_fp16_has_room_for_large_advantages():
    parts, sampled = some_tokens()
    sampled["advantage"][:3] = torch.tensor([-100.0, 90.0, -60.0])
    hidden, head, teacher = (part.half().requires_grad_() for part in parts)
    sampled = {n: v if n == "labels" else v.float() for n, v in sampled.items()}
    weights = torch.full((40,), 1 / 40)
    loss, _ = policy_loss(hidden, head, weights, sampled, teacher.detach(), head.detach(), 0.2)
    exact = [part.detach().double().requires_grad_() for part in (hidden, head)]
    each = autograd_loss(exact[0] @ exact[1].T, (teacher @ head.T).detach().double(), sampled, 0.2)
    for found, right in zip(
        torch.autograd.grad(loss, (hidden, head)),
        torch.autograd.grad(each.mean(), exact),
        strict=True,
    ):
        assert found.isfinite().all()
        assert (found - right).norm() < 0.01 * right.norm()


def test_equal_models_have_neither_rewards_nor_a_gradient():
    tables = Tables(5, 2)
    tables.teacher = tables.student.detach().clone()
    log_q, log_b, reward = tables.scores(tables.all, 0.2)
    assert reward.abs().max() < 1e-12 and (log_q - log_b).abs().max() < 1e-12
    weights = torch.ones_like(reward)
    loss, figures = tables.loss(tables.all, weights, advantages(reward), log_b, clip=0.2)
    assert abs(float(loss.detach())) < 1e-10 and float(figures["clipped"]) == 0
    assert tables.gradient(tables.all, weights, advantages(reward), log_b).abs().max() < 1e-10


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_an_impossible_token_leaves_everything_finite(whose):
    """Id 7, which row 7 has sampled all the same."""
    _, sampled = some_tokens()
    logits, teacher = drawn(40, 50), drawn(50, 1, seed=1)
    (logits[:, 7] if whose == "student" else teacher[7]).fill_(-math.inf)
    sampled["log_b"][7] = math.log(0.2) - 3
    ones = torch.ones(40, 1, dtype=torch.float64)
    rule = policy_rule(sampled, ones[:, 0], ones, teacher, 0.2)
    figures, slope = rule(logits, torch.arange(40), 1.0)
    assert slope.isfinite().all() and all(f.isfinite().all() for f in figures.values())


@pytest.mark.parametrize("original", [False, True])
@pytest.mark.parametrize("mix", [0.0, 0.2])
def test_training_on_samples_reaches_the_teacher(mix, original):
    tables, generator = Tables(8, 3, seed=11), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam([tables.student], lr=0.05)
    options = {"gamma": 0.95, "inclusive": True, "whiten": True} if original else {}
    weights = torch.full((64, 3), 1 / 192, dtype=torch.float64)
    before = float(tables.kl().detach())
    for _ in range(300):
        log_b = log_mix(tables.student.log_softmax(1), tables.teacher.log_softmax(1), mix).detach()
        tokens = torch.zeros(64, 3, dtype=torch.int64)
        for t in range(3):
            chances = log_b[tables.places(tokens)[:, t]].exp()
            tokens[:, t] = torch.multinomial(chances, 1, generator=generator)[:, 0]
        _, chosen, reward = tables.scores(tokens, mix)
        adam.zero_grad()
        tables.loss(tokens, weights, advantages(reward, **options), chosen, 0.2)[0].backward()
        adam.step()
    assert before > 1 and float(tables.kl().detach()) < 0.02
