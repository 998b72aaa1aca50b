"""pretrain/rollouts.py: what tokens are drawn from, their scores, and which rows are prompts.

.venv/bin/python -m pytest tests/pretrain/test_rollouts.py
"""

import json
import math

import numpy as np
import pytest
import torch

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from pretrain import rollouts
from pretrain.models import new_model
from pretrain.policy_loss import log_mix
from pretrain.rollouts import continue_mixed, prompt_rows, score
from tests import make

VOCAB, EOS, PROMPT, NEW = 61, 0, 7, 9


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A student, and a teacher of another width whose logits have 8 rows more."""
    folder, made = tmp_path_factory.mktemp("models"), []
    for seed, config in ((1, make.qwen_config(VOCAB)), (2, make.qwen_config(VOCAB + 8, 48))):
        (folder / "config.json").write_text(json.dumps(config))
        made.append(new_model(folder / "config.json", seed, "sdpa").eval())
        with torch.no_grad():
            for parameter in made[-1].parameters():
                parameter.mul_(4)  # far from uniform distributions
    return tuple(made)


def prompts(count=5):
    """The first row has an end-of-text inside, the second one at its end."""
    found = torch.randint(1, VOCAB, (count, PROMPT), generator=torch.Generator().manual_seed(2))
    found[0, 3] = found[1:2, -1] = EOS
    return found


def test_a_first_token_has_the_mixes_distribution(models):
    count, one = 20_000, prompts(1)[:, :2]
    with torch.no_grad():
        q, p = (m(one).logits[0, -1, :VOCAB].double().softmax(0) for m in models)
    for mix in (0.0, 0.2):
        expected = (1 - mix) * q + mix * p
        tokens = torch.cat(
            [
                continue_mixed(models, VOCAB, one.expand(4000, -1), 1, part, 3, mix)[:, -1]
                for part in torch.arange(count).split(4000)
            ]
        )
        found = torch.bincount(tokens, minlength=VOCAB)
        distance = ((found - count * expected) ** 2 / (count * expected)).sum()
        assert len(found) == VOCAB and float(distance) < 60 + 5 * math.sqrt(120)  # chi-square
        other = ((found - count * p) ** 2 / (count * p)).sum()
        assert float(other) > 10 * float(distance)
        weight = (q / expected)[tokens]  # E_b[w f] = E_q[f]
        assert float(weight.max()) <= 1 / (1 - mix) + 1e-12
        values = torch.linspace(-1, 1, VOCAB).double()
        assert float((weight * values[tokens]).mean() - (q * values).sum()) == pytest.approx(
            0, abs=0.02
        )


def test_scores_are_those_of_the_sampling(models, monkeypatch):
    """What a token was drawn with, from the cache, is what is computed anew."""
    seen, sample = [], rollouts.sample

    def remembered(logits, numbers, *options):
        token = sample(logits, numbers, *options)
        seen.append(logits.gather(1, token))
        return token

    monkeypatch.setattr(rollouts, "sample", remembered)
    tokens = continue_mixed(models, VOCAB, prompts(), NEW, torch.arange(5), 0, 0.2)
    scores = score(models, VOCAB, tokens, NEW, 0.2)
    assert torch.equal(tokens[:, :PROMPT], prompts())
    assert torch.allclose(torch.cat(seen, dim=1), scores["log_b"], atol=1e-5)
    with torch.no_grad():
        log_q, log_p = (
            m(tokens)
            .logits[:, PROMPT - 1 : -1, :VOCAB]
            .log_softmax(2)
            .gather(2, tokens[:, PROMPT:, None])
            .squeeze(2)
            for m in models
        )
    assert torch.allclose(scores["reward"], log_p - log_q, atol=1e-4)
    assert torch.allclose(scores["weight"], (log_q - log_mix(log_q, log_p, 0.2)).exp(), atol=1e-4)
    assert scores["weight"].max() <= 1.25 + 1e-6


def test_a_rollout_does_not_depend_on_its_batch(models):
    samples = torch.tensor([3, 10**12, 5, 6, 7])
    together = continue_mixed(models, VOCAB, prompts(), NEW, samples, 4, 0.2)
    scores = score(models, VOCAB, together, NEW, 0.2)
    for at in range(5):
        own = slice(at, at + 1)
        alone = continue_mixed(models, VOCAB, prompts()[own], NEW, samples[own], 4, 0.2)
        assert torch.equal(alone[0], together[at])
        for name, values in score(models, VOCAB, alone, NEW, 0.2).items():
            assert torch.allclose(values[0], scores[name][at], atol=1e-5)
    assert not torch.equal(together, continue_mixed(models, VOCAB, prompts(), NEW, samples, 5, 0.2))


def test_equal_models_have_no_rewards(models):
    student = models[0]
    tokens = continue_mixed((student, student), VOCAB, prompts(), NEW, torch.arange(5), 0, 0.2)
    scores = score((student, student), VOCAB, tokens, NEW, 0.2)
    assert scores["reward"].abs().max() == 0 and (scores["weight"] - 1).abs().max() < 1e-6


def test_a_row_that_is_too_short_is_replaced_by_the_next_long_one(tmp_path):
    rows = make.random_rows(6, 90, 0)
    rows = [np.resize(rows[0], length) for length in (9, 3, 3, 8, 9, 2)]
    tokenizer = make.train_tokenizer(tmp_path / "tokenizer", make.documents(20), 100)
    corpus = Corpus(make.save_corpus(tmp_path / "corpus", rows, tokenizer, shard_size=4))
    assert prompt_rows(corpus, np.arange(6), 8).tolist() == [0, 3, 3, 3, 4, 0]
    with pytest.raises(InputError, match="PROMPT_LENGTH"):
        prompt_rows(corpus, np.array([1]), 10)
