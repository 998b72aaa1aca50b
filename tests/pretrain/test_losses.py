"""The chunked loss against full logits, and which positions count."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from pretrain import losses
from pretrain.losses import inputs_and_labels, sequence_mean_weights, weighted_cross_entropy
from pretrain.objectives.language_modelling import batch_loss
from tests import make

EOS, NEWLINE = 0, 9


def random_case(n=23, width=8, vocab=31, seed=0, dtype=torch.float32, spread=1.0):
    """(hidden, head, labels, weights), a quarter of the weights zero."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, width, generator=generator).mul(spread).to(dtype).requires_grad_()
    head = torch.randn(vocab, width, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(vocab, (n,), generator=generator)
    weights = torch.rand(n, generator=generator)
    weights[torch.rand(n, generator=generator) < 0.25] = 0
    return hidden, head, labels, weights


def full_logits(hidden, head, labels, weights):
    """The obvious loss in float64 and its gradients for hidden and head."""
    hidden, head = (t.detach().double().requires_grad_() for t in (hidden, head))
    each = F.cross_entropy(hidden @ head.T, labels, reduction="none")
    loss = (weights.double() * each).sum()
    return loss.detach(), *torch.autograd.grad(loss, (hidden, head))


def close(found, expected, tolerance):
    """Equal up to a share of the largest entry."""
    assert (found.double() - expected.double()).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("rows", [1, 3, 23, 1000, None])
def test_loss_and_gradients_equal_full_logits(rows):
    case = random_case()
    loss = weighted_cross_entropy(*case, rows)
    loss.backward()
    expected, grad_hidden, grad_head = full_logits(*case)
    assert loss.dtype == torch.float32
    close(loss, expected, 1e-6)
    close(case[0].grad, grad_hidden, 1e-6)
    close(case[1].grad, grad_head, 1e-6)


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_loss_and_gradients_equal_torchs_chunked_loss(rows):
    hidden, head, labels, weights = random_case(seed=1)
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows, chunking_method=None)
    each = F.linear_cross_entropy(hidden, head, labels, reduction="none", options=options)
    theirs = torch.autograd.grad((each * weights).sum(), (hidden, head))
    ours = torch.autograd.grad(
        weighted_cross_entropy(hidden, head, labels, weights, rows), (hidden, head)
    )
    for a, b in zip(ours, theirs, strict=True):
        close(a, b, 1e-5)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(2, 40), st.integers(1, 15), st.integers(0, 1000))
def test_any_shape_equals_full_logits(n, vocab, rows, seed):
    case = random_case(n, 4, vocab, seed, spread=3.0)
    loss = weighted_cross_entropy(*case, rows)
    loss.backward()
    expected, grad_hidden, grad_head = full_logits(*case)
    assert abs(float(loss.detach()) - float(expected)) <= 1e-5 * (1 + abs(float(expected)))
    torch.testing.assert_close(case[0].grad.double(), grad_hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(case[1].grad.double(), grad_head, rtol=1e-4, atol=1e-5)


def test_rows_of_weight_zero_are_not_computed():
    hidden, head, labels, weights = random_case()
    spoilt = hidden.detach().clone()
    spoilt[weights == 0] = float("nan")
    spoilt.requires_grad_()
    loss = weighted_cross_entropy(spoilt, head, labels, weights)
    loss.backward()
    close(loss, full_logits(hidden, head, labels, weights)[0], 1e-6)
    assert torch.isfinite(head.grad).all()
    assert (spoilt.grad[weights == 0] == 0).all() and (spoilt.grad[weights > 0] != 0).any()


def test_a_batch_in_which_nothing_counts_has_loss_and_gradients_zero():
    hidden, head, labels, weights = random_case()
    loss = weighted_cross_entropy(hidden, head, labels, torch.zeros_like(weights))
    loss.backward()
    assert float(loss.detach()) == 0 and not hidden.grad.any() and not head.grad.any()


def test_only_the_gradients_that_are_wanted_are_computed():
    hidden, head, labels, weights = random_case()
    _, grad_hidden, grad_head = full_logits(hidden, head, labels, weights)
    weighted_cross_entropy(hidden, head.detach(), labels, weights).backward()
    weighted_cross_entropy(hidden.detach(), head, labels, weights).backward()
    close(hidden.grad, grad_hidden, 1e-6)
    close(head.grad, grad_head, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(dtype):
    hidden, head, labels, weights = random_case(n=64, vocab=100, dtype=dtype)
    loss = weighted_cross_entropy(hidden, head, labels, weights, 16)
    loss.backward()
    assert loss.dtype == torch.float32
    assert hidden.grad.dtype == head.grad.dtype == dtype
    expected, grad_hidden, grad_head = full_logits(hidden, head, labels, weights)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 2e-3
    close(loss, expected, tolerance)
    close(hidden.grad, grad_hidden, tolerance)
    close(head.grad, grad_head, tolerance)


def test_small_gradients_survive_half_precision():
    """Weights of 1 / (1024 x 8) and loss scale 2^11, as at the start of fp16 training.

    50 tokens share the probability; the others have some 1e-10 each, and never are a label.
    """
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(256, 16, generator=generator).abs().half().requires_grad_()
    head = (-torch.rand(6000, 16, generator=generator)).half()
    head[:50] = 1.0
    head = head.requires_grad_()
    labels = torch.randint(50, (256,), generator=generator)
    weights = torch.full((256,), 1 / 8192)
    (weighted_cross_entropy(hidden, head, labels, weights) * 2.0**11).backward()
    expected = full_logits(hidden, head, labels, weights)[2][50:] * 2.0**11
    found = head.grad[50:].double()
    representable = expected > 1.2e-7  # twice the smallest fp16 number above 0
    assert representable.float().mean() > 0.9
    assert (found[representable] > 0).all()
    ratio = found[representable] / expected[representable]
    assert abs(float(ratio.mean()) - 1) < 5e-3


def test_the_loss_scale_is_multiplied_before_the_cast():
    """A gradient that fp16 cannot hold by itself, and can after the scale."""
    hidden, head, labels, weights = random_case(n=4, dtype=torch.float16)
    weights = torch.full_like(weights, 1e-8)
    (weighted_cross_entropy(hidden, head, labels, weights) * 2.0**20).backward()
    _, grad_hidden, grad_head = full_logits(hidden, head, labels, weights)
    close(hidden.grad, grad_hidden * 2**20, 1e-2)
    close(head.grad, grad_head * 2**20, 1e-2)


def test_logits_of_the_whole_batch_never_exist(monkeypatch):
    seen = []
    monkeypatch.setattr(losses, "CHUNK_ELEMENTS", 31 * 5)
    for owner, name in ((torch.Tensor, "__matmul__"), (torch, "mm")):
        product = getattr(owner, name)

        def watched(*arguments, product=product, **options):
            seen.append(product(*arguments, **options))
            return seen[-1]

        monkeypatch.setattr(owner, name, watched)
    weighted_cross_entropy(*random_case()).backward()
    assert max(t.numel() for t in seen) <= 31 * 8 and len(seen) > 6


def padded(rows, filler):
    width = max(len(row) for row in rows) + 2
    tokens = torch.tensor([row + [filler] * (width - len(row)) for row in rows])
    return tokens, torch.tensor([len(row) for row in rows])


CASES = [  # row, the input positions that count
    ([5, 6, 7], [0, 1]),
    ([5, EOS, 7, 8], [0, 2]),  # the end-of-text is predicted, what follows it is not
    ([5, 6, EOS], [0, 1]),
    ([EOS, 6, 7], [1]),
    ([EOS, EOS, EOS], []),
    ([EOS, NEWLINE], []),
    ([EOS, NEWLINE, 5], [1]),
    ([7], []),
]


@pytest.mark.parametrize("filler", [EOS, 5])
def test_which_positions_count(filler):
    """Whatever the padding is: what is padding comes from the lengths."""
    tokens, lengths = padded([row for row, _ in CASES], filler)
    inputs, labels, counted = inputs_and_labels(tokens, lengths, EOS)
    assert inputs.shape == labels.shape == counted.shape == (len(CASES), tokens.shape[1] - 1)
    for number, (row, expected) in enumerate(CASES):
        assert counted[number].nonzero().flatten().tolist() == expected, row
        for place in expected:
            assert inputs[number, place] == row[place]
            assert labels[number, place] == row[place + 1]


def test_sequence_mean_then_batch_mean():
    """Sequences without a counted position stay in the denominator."""
    counted = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    third, twelfth = 1 / (2 * 3), 1 / (4 * 3)
    expected = torch.tensor([[third, 0, third, 0], [0] * 4, [twelfth] * 4])
    torch.testing.assert_close(sequence_mean_weights(counted), expected)


def obvious_batch_loss(model: nn.Module, rows: list[list[int]]) -> torch.Tensor:
    """The rule in loops: a row at a time, without padding, from transformers' full logits."""
    total = torch.zeros(())
    for row in rows:
        if len(row) < 2:
            continue
        log_probs = model(torch.tensor([row[:-1]])).logits[0].log_softmax(-1)
        losses = [-log_probs[i, row[i + 1]] for i in range(len(row) - 1) if row[i] != EOS]
        if losses:
            total = total + sum(losses) / len(losses)
    return total / len(rows)


@pytest.mark.parametrize("tied", [True, False])
def test_objective_equals_transformers_with_its_gradients(tied, tmp_path):
    config = {**make.qwen_config(40), "tie_word_embeddings": tied}
    config = AutoConfig.for_model(**json.loads(json.dumps(config)))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    rows = [row for row, _ in CASES] + [list(range(1, 30)), [3, EOS] * 6]
    tokens, lengths = padded(rows, EOS)
    loss = batch_loss(model, tokens, lengths, EOS)
    expected = obvious_batch_loss(model, rows)
    close(loss.detach(), expected.detach(), 1e-6)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(loss, parameters)
    theirs = torch.autograd.grad(expected, parameters)
    for name, a, b in zip(dict(model.named_parameters()), ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")
