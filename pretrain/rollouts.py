"""Rollouts of MiniLLM: prompts that student and teacher continue together, and their scores.

Each token is drawn from (1 - mix) q + mix p, q the student's distribution, p the teacher's (Gu et
al., arXiv 2306.08543, section 2.2). Sampling goes on through an end-of-text, as the rows of a
packed corpus do, and nothing is masked. The noise follows from (seed, sample, position).
"""

import numpy as np
import torch
from torch import nn

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from pretrain.draws import uniforms
from pretrain.generation import sample
from pretrain.losses import chunk_logits, chunk_memory, label_log_probs
from pretrain.models import head_weight, hidden_states
from pretrain.policy_loss import FLOOR, log_mix

BLOCK = 4096  # rows looked at together
Models = tuple[nn.Module, nn.Module]  # student, teacher


def prompt_rows(corpus: Corpus, rows: np.ndarray, length: int) -> np.ndarray:
    """Each of the rows [N], or the next one of the corpus with `length` tokens; else InputError."""
    found = np.array(rows, np.int64)
    for at in np.flatnonzero(corpus.lengths(found) < length):
        found[at] = next_row(corpus, int(found[at]), length)
    return found


def next_row(corpus: Corpus, row: int, length: int) -> int:
    """The first row from `row` on, around the corpus's end, with `length` tokens."""
    for start in range(row, row + len(corpus), BLOCK):
        rows = np.arange(start, start + BLOCK) % len(corpus)
        if len(hits := np.flatnonzero(corpus.lengths(rows) >= length)):
            return int(rows[hits[0]])
    raise InputError(
        "no row of the corpus is long enough for a prompt",
        where=corpus.folder,
        expected=f"a row of {length} tokens",
        fix="lower PROMPT_LENGTH",
    )


@torch.no_grad()
def continue_mixed(
    models: Models,
    vocab: int,
    prompts: torch.Tensor,
    new_tokens: int,
    samples: torch.Tensor,
    seed: int,
    mix: float,
) -> torch.Tensor:
    """Prompts [B, P] with a continuation, [B, P + new_tokens] int64; samples [B] key the noise.

    Both models keep a key-value cache; the distributions are over the first `vocab` ids, in fp32.
    """
    tokens, caches = prompts, [None, None]
    for position in range(prompts.shape[1], prompts.shape[1] + new_tokens):
        log_probs = []
        for at, model in enumerate(models):
            inputs = tokens if caches[at] is None else tokens[:, -1:]
            # Not a call of the module: with COMPILE it would compile for the caches' lengths.
            run, cache = model.base_model.forward, caches[at]
            output = run(input_ids=inputs, past_key_values=cache, use_cache=True)
            caches[at], head = output.past_key_values, head_weight(model)[:vocab]
            hidden = output.last_hidden_state[:, -1].to(head.dtype)
            memory = chunk_memory(len(hidden), len(hidden), head)
            log_probs.append(chunk_logits(hidden, head, memory).log_softmax(dim=1))
        number = uniforms(seed, samples, torch.full_like(samples, position), 1)
        tokens = torch.cat([tokens, sample(log_mix(*log_probs, mix), number, 1.0, 1.0)], dim=1)
    return tokens


@torch.no_grad()
def score(
    models: Models, vocab: int, tokens: torch.Tensor, new_tokens: int, mix: float
) -> dict[str, torch.Tensor]:
    """Of each new token, [B, new_tokens] fp32: log_b, its log-probability under the mix;
    reward = log p - log q; weight = q / b. By plain forward passes, not those of the sampling.
    """
    labels = tokens[:, -new_tokens:].flatten()
    log_q, log_p = (
        label_log_probs(
            response_states(model, tokens, new_tokens), head_weight(model)[:vocab], labels
        )
        .clamp_(min=FLOOR)
        .view(-1, new_tokens)
        for model in models
    )
    log_b = log_mix(log_q, log_p, mix)
    return {"log_b": log_b, "reward": log_p - log_q, "weight": (log_q - log_b).exp()}


def response_states(model: nn.Module, tokens: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Hidden states that predict the last new_tokens of tokens [B, L], [B x new_tokens, H]."""
    return hidden_states(model, tokens[:, :-1])[:, -new_tokens:].flatten(0, 1)
