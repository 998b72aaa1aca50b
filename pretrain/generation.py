"""Sampling continuations of prompts with a key-value cache.

The noise of a token follows from (seed, row, position), so that a row's text depends neither on
the number of workers nor on interruptions. Sampling goes on through an end-of-text, as the rows of
a packed corpus do.
"""

import torch
from torch import nn

from pretrain.draws import uniforms
from pretrain.models import head_weight


@torch.no_grad()
def continue_prompts(
    model: nn.Module,
    prompts: torch.Tensor,
    new_tokens: int,
    rows: torch.Tensor,
    seed: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> torch.Tensor:
    """Prompts with a continuation, [B, P + new_tokens] int64.

    prompts: [B, P], all of one length; rows: [B] int64, what the noise is drawn by. temperature 0
    takes the most probable token. top_p: the most probable tokens that together reach this mass.
    """
    tokens, cache = prompts, None
    vocab_size = head_weight(model).shape[0]
    for position in range(prompts.shape[1], prompts.shape[1] + new_tokens):
        inputs = tokens if cache is None else tokens[:, -1:]
        output = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        logits = output.logits[:, -1, :vocab_size].float()
        number = uniforms(seed, rows, torch.full_like(rows, position), 1)
        tokens = torch.cat([tokens, sample(logits, number, temperature, top_p)], dim=1)
    return tokens


def sample(
    logits: torch.Tensor, numbers: torch.Tensor, temperature: float, top_p: float
) -> torch.Tensor:
    """A token of each row of logits [B, V] by inversion of numbers [B, 1] in [0, 1), [B, 1]."""
    if temperature == 0:
        return logits.argmax(dim=1, keepdim=True)
    probabilities = (logits / temperature).double().softmax(dim=1)
    if top_p < 1:
        highest, ids = probabilities.sort(dim=1, descending=True, stable=True)
        # A token stays if those before it have not reached the mass yet: the first always does.
        left_out = highest.cumsum(dim=1) - highest >= top_p
        probabilities = probabilities.scatter(1, ids, highest.masked_fill(left_out, 0.0))
    mass = probabilities.cumsum(dim=1)
    found = torch.searchsorted(mass, numbers * mass[:, -1:], right=True)
    return found.clamp_(max=logits.shape[1] - 1)
