"""pretrain/generation.py: greedy text is transformers' own; sampled text has its distribution.

.venv/bin/python -m pytest tests/pretrain/test_generation.py
"""

import copy
import json

import pytest
import torch

from pretrain.generation import continue_prompts, sample
from pretrain.models import new_model
from tests import make

VOCAB = 61


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = tmp_path_factory.mktemp("model") / "config.json"
    config.write_text(json.dumps(make.qwen_config(VOCAB)))
    model = new_model(config, 1, "sdpa").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)  # far from uniform distributions
    return model


def prompts(count=5, length=7):
    return torch.randint(0, VOCAB, (count, length), generator=torch.Generator().manual_seed(2))


def test_greedy_text_is_that_of_transformers(model):
    expected = model.generate(
        prompts(),
        attention_mask=torch.ones_like(prompts()),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    found = continue_prompts(model, prompts(), 12, torch.arange(5), 0, temperature=0)
    assert torch.equal(found, expected)
    assert torch.equal(found[:, :7], prompts())


def test_the_text_of_a_row_does_not_depend_on_its_batch(model):
    rows = torch.tensor([3, 10**12, 5, 6, 7])
    together = continue_prompts(model, prompts(), 9, rows, 4)
    for at in range(5):
        alone = continue_prompts(model, prompts()[at : at + 1], 9, rows[at : at + 1], 4)
        assert torch.equal(alone[0], together[at])
    assert not torch.equal(together, continue_prompts(model, prompts(), 9, rows, 5))


def test_ids_beyond_the_vocabulary_are_never_sampled(model):
    for temperature in (0, 3.0):
        found = continue_prompts(model, prompts() % 9, 20, torch.arange(5), 1, temperature, 1, 9)
        assert found.max() < 9


def test_a_row_of_logits_that_are_not_finite_is_marked(model):
    broken = copy.deepcopy(model)
    broken.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        broken.get_input_embeddings().weight[7] = float("nan")
    given = prompts() % 7
    given[3, 2] = 7
    for temperature in (0, 1.0):
        found = continue_prompts(broken, given, 6, torch.arange(5), 1, temperature, 1, 7)
        assert (found[3, 7:] == -1).all() and found[[0, 1, 2, 4]].min() >= 0


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (2.0, 1.0), (1.0, 0.6)])
def test_tokens_have_the_distribution(temperature, top_p):
    logits = 2 * torch.randn(1, 20, generator=torch.Generator().manual_seed(0))
    count = 50_000
    numbers = (torch.arange(count).double()[:, None] + 0.5) / count
    found = sample(logits.expand(count, -1), numbers, temperature, top_p)
    p = (logits[0] / temperature).softmax(0)
    order = p.argsort(descending=True)
    kept, mass = [], 0.0
    for token in order.tolist():
        if mass >= top_p:
            break
        kept.append(token)
        mass += float(p[token])
    expected = torch.zeros(20)
    expected[kept] = p[kept] / p[kept].sum()
    shares = torch.bincount(found[:, 0], minlength=20) / count
    assert torch.allclose(shares, expected, atol=1e-4)
    assert set(found.unique().tolist()) <= set(kept)
