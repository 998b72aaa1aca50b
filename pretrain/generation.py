"""Sampling continuations of prompts with a key-value cache.

The noise of a token follows from (seed, row, position), so that a row's text depends neither on
the number of workers nor on interruptions. Sampling goes on through an end-of-text, as the rows of
a packed corpus do.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers.cache_utils import DynamicCache, DynamicLayer

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
    vocab_size: int | None = None,
    before_token: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """Prompts with a continuation, [B, P + new_tokens] int64.

    prompts: [B, P], all of one length; rows: [B] int64, what the noise is drawn by. temperature 0
    takes the most probable token. top_p: the most probable tokens that together reach this mass.
    vocab_size: only ids below it are sampled; a head may be padded. A row that meets logits that
    are not finite gets -1 for all its new tokens. before_token may end it by an exception.
    """
    tokens, length = prompts, prompts.shape[1]
    cache, finite = roomy_cache(model, length + new_tokens), torch.ones_like(rows, dtype=bool)
    vocab_size = vocab_size or head_weight(model).shape[0]
    for position in range(length, length + new_tokens):
        before_token()
        inputs = tokens if position == length else tokens[:, -1:]
        output = model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = output.logits[:, -1, :vocab_size].float()
        finite &= logits.amax(dim=1).isfinite()  # looked at in the end: no step waits for it
        number = uniforms(seed, rows, torch.full_like(rows, position), 1)
        tokens = torch.cat([tokens, sample(logits, number, temperature, top_p)], dim=1)
    tokens[:, length:].masked_fill_(~finite[:, None], -1)
    return tokens


class RoomyLayer(DynamicLayer):
    """Keys and values of a layer in buffers for `length` tokens: growing copies none of them."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make the buffers, [B, heads, length, width]."""
        super().lazy_initialization(key_states, value_states)
        self.buffers = [
            states.new_empty(*states.shape[:2], self.length, states.shape[3])
            for states in (key_states, value_states)
        ]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the states of some more tokens; returns those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values


def roomy_cache(model: nn.Module, length: int) -> DynamicCache:
    """An empty cache for `length` tokens; layers with a sliding window stay transformers' own."""
    cache = DynamicCache(config=model.config)
    cache.layers = [
        RoomyLayer(length) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def sample(
    logits: torch.Tensor, numbers: torch.Tensor, temperature: float, top_p: float
) -> torch.Tensor:
    """A token of each row of logits [B, V] by inversion of numbers [B, 1] in [0, 1), [B, 1]."""
    if temperature == 0:
        return logits.argmax(dim=1, keepdim=True)
    probabilities = (logits / temperature).softmax(dim=1)
    if top_p < 1:
        highest, ids = probabilities.sort(dim=1, descending=True, stable=True)
        # A token stays if those before it have not reached the mass yet: the first always does.
        left_out = highest.cumsum(dim=1, dtype=torch.float64) - highest >= top_p
        probabilities = probabilities.scatter(1, ids, highest.masked_fill(left_out, 0.0))
    mass = probabilities.cumsum(dim=1, dtype=torch.float64)
    found = torch.searchsorted(mass, numbers * mass[:, -1:], right=True)
    return found.clamp_(max=logits.shape[1] - 1)
