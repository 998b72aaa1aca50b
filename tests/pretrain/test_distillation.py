"""pretrain/distillation.py against the formulas on full logits, and the original's own numbers.

.venv/bin/python -m pytest tests/pretrain/test_distillation.py
"""

import pytest
import torch

from pretrain.distillation import live_rule, stored_rule, teacher_entropy
from pretrain.losses import head_loss

N, WIDTH, WIDER, VOCAB = 17, 8, 12, 29


def case(seed=0, dtype=torch.float64, vocab=VOCAB):
    """(hidden, head, teacher's hidden and head, labels, weights): the first two want gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    hidden, head = draw(N, WIDTH).requires_grad_(), draw(vocab, WIDTH).requires_grad_()
    labels = torch.randint(0, vocab, (N,), generator=generator)
    weights = torch.rand(N, generator=generator, dtype=torch.float64).to(dtype)
    weights[3] = 0
    return hidden, head, draw(N, WIDER), draw(vocab, WIDER), labels, weights


def obvious(hidden, head, t_hidden, t_head, labels, weights, share, temperature, reverse):
    """The formula on full logits: loss and figures."""
    z, z_t = hidden @ head.T, t_hidden @ t_head.T
    lm = -z.log_softmax(1)[range(N), labels]
    q, t = (z / temperature).softmax(1), (z_t / temperature).softmax(1)
    entropy = -(t * t.log()).sum(1)
    kd = (q * (q.log() - t.log())).sum(1) if reverse else -(t * q.log()).sum(1)
    loss = ((1 - share) * lm + share * kd) * weights
    return loss.sum(), {
        "lm_loss": (lm * weights).sum(),
        "kd_loss": (kd * weights).sum(),
        "kd_entropy": (entropy * weights).sum(),
    }


def gradients(loss, hidden, head):
    return torch.autograd.grad(loss, (hidden, head))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("rows", [1, 5, 100])
def test_loss_and_gradients_equal_the_full_logits(rows, temperature, reverse):
    hidden, head, t_hidden, t_head, labels, weights = values = case()
    share = torch.full((N,), 0.3, dtype=torch.float64)
    share[5] = 0  # a token that is left to the label
    expected, figures = obvious(*values, share, temperature, reverse)
    rule = live_rule(labels, share, t_hidden, t_head, temperature, reverse=reverse)
    found, others = head_loss(hidden, head, weights, rule, rows)
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    for name, value in figures.items():
        assert torch.allclose(others[name], value, rtol=0, atol=1e-10), name
    kl = others["kd_loss"] - (0 if reverse else others["kd_entropy"])
    assert torch.allclose(others["kl"], kl, atol=1e-10)
    for mine, theirs in zip(
        gradients(found, hidden, head), gradients(expected, hidden, head), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-10)


def test_a_student_that_is_the_teacher_has_kl_and_gradient_zero():
    hidden, head, _, _, labels, weights = case()
    same = hidden.detach(), head.detach()
    for reverse in (False, True):
        rule = live_rule(labels, torch.ones(N).double(), *same, reverse=reverse)
        loss, figures = head_loss(hidden, head, weights, rule)
        assert abs(float(figures["kl"])) < 1e-12
        assert all(float(g.abs().max()) < 1e-12 for g in gradients(loss, hidden, head))


def targets(t_hidden, t_head):
    return (t_hidden @ t_head.T).softmax(1)


@pytest.mark.parametrize("remainder", [False, True])
def test_all_ids_stored_equal_the_live_teacher(remainder):
    hidden, head, t_hidden, t_head, labels, weights = case()
    share = torch.full((N,), 0.5, dtype=torch.float64)
    ids = torch.arange(VOCAB).expand(N, VOCAB)
    rule = stored_rule(labels, share, ids, targets(t_hidden, t_head), remainder=remainder)
    found, figures = head_loss(hidden, head, weights, rule)
    live, others = head_loss(hidden, head, weights, live_rule(labels, share, t_hidden, t_head))
    assert torch.allclose(figures["kd_loss"], others["kd_loss"], atol=1e-5 if remainder else 1e-10)
    pairs = zip(gradients(found, hidden, head), gradients(live, hidden, head), strict=True)
    for mine, theirs in pairs:
        assert torch.allclose(mine, theirs, atol=1e-5 if remainder else 1e-10)


@pytest.mark.parametrize("remainder", [False, True])
def test_a_stored_part_equals_its_formula(remainder):
    hidden, head, t_hidden, t_head, labels, weights = case()
    share = torch.full((N,), 0.7, dtype=torch.float64)
    kept = targets(t_hidden, t_head).topk(4)
    rule = stored_rule(labels, share, kept.indices, kept.values, remainder=remainder)
    found, _ = head_loss(hidden, head, weights, rule, 5)
    log_q = (hidden @ head.T).log_softmax(1)
    q = log_q.exp().gather(1, kept.indices)
    kd = -(kept.values * q.log()).sum(1)
    if remainder:
        kd = kd - (1 - kept.values.sum(1)) * (1 - q.sum(1)).log()
    expected = (weights * (0.3 * -log_q[range(N), labels] + 0.7 * kd)).sum()
    assert torch.allclose(found, expected, atol=1e-10)
    pairs = zip(gradients(found, hidden, head), gradients(expected, hidden, head), strict=True)
    for mine, theirs in pairs:
        assert torch.allclose(mine, theirs, atol=1e-10)


def test_single_precision_at_the_real_vocabulary():
    hidden, head, t_hidden, t_head, labels, weights = values = case(1, torch.float32, 151_936)
    share = torch.full((N,), 0.5)
    exact = [v.detach().double() if v.is_floating_point() else v for v in values]
    exact[:2] = [v.requires_grad_() for v in exact[:2]]
    expected, _ = obvious(*exact, share, 1.0, False)
    found, _ = head_loss(hidden, head, weights, live_rule(labels, share, t_hidden, t_head), 5)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    pairs = zip(gradients(found, hidden, head), gradients(expected, *exact[:2]), strict=True)
    for mine, theirs in pairs:
        assert float((mine - theirs).norm()) <= 1e-5 * float(theirs.norm())


def test_entropy_of_the_teacher():
    _, _, t_hidden, t_head, _, _ = case()
    t = targets(t_hidden, t_head)
    assert torch.allclose(teacher_entropy(t_hidden, t_head), -(t * t.log()).sum(1), atol=1e-10)
