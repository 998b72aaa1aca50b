"""What is stored of a teacher's distribution: ids drawn from it, or its most probable ids.

Draws make an unbiased target: the mean of count / draws is the distribution itself (Anshumann et
al., arXiv 2503.16870). They depend on (seed, corpus row, position) and the logits alone.
"""

import torch

from pretrain.distillation import log_softmax_
from pretrain.losses import chunk_logits, chunk_memory, chunk_rows, exact_type


def uniforms(seed: int, rows: torch.Tensor, positions: torch.Tensor, count: int) -> torch.Tensor:
    """`count` numbers in [0, 1) for each (row, position) [n], float64 [n, count].

    Arithmetic, not state: the finaliser of SplitMix64 (Steele et al., OOPSLA 2014) over a counter.
    """
    number = torch.arange(count, dtype=torch.int64, device=rows.device)
    x = _mixed(_mixed(_mixed(torch.full_like(rows, seed)) + rows) + positions)
    return (_shift(_mixed(x[:, None] + number), 11)).double() / 2**53


def _mixed(x: torch.Tensor) -> torch.Tensor:
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift to the right of int64 taken as uint64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


@torch.no_grad()
def draw(
    hidden: torch.Tensor,
    head: torch.Tensor,
    rows: torch.Tensor,
    positions: torch.Tensor,
    seed: int,
    draws: int,
    *,
    systematic: bool = True,
) -> torch.Tensor:
    """Ids drawn with replacement from softmax(hidden head^T), ascending, int64 [N, draws].

    hidden [N, H], head [V, H]; rows and positions [N] int64 of the corpus. Systematic: draw i is
    the first id whose cumulative mass exceeds (i + u) / draws, one u per token; each id's count is
    then within 1 of draws x its probability.
    """
    numbers = uniforms(seed, rows, positions, 1 if systematic else draws)
    if systematic:
        numbers = (torch.arange(draws, device=rows.device) + numbers) / draws
    numbers, _ = numbers.sort(dim=1)
    ids = torch.empty(numbers.shape, dtype=torch.int64, device=hidden.device)
    for part, log_t in chunks(hidden, head):
        mass = log_t.double().exp_().cumsum(dim=1)
        points = numbers[part] * mass[:, -1:]  # rounding leaves the whole mass a little off 1
        found = torch.searchsorted(mass, points, right=True)
        ids[part] = found.clamp_(max=head.shape[0] - 1)
    return ids


@torch.no_grad()
def most_probable(
    hidden: torch.Tensor, head: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids int64 [N, k], their probabilities [N, k]) of softmax(hidden head^T), highest first."""
    ids = torch.empty(len(hidden), k, dtype=torch.int64, device=hidden.device)
    values = torch.empty(ids.shape, dtype=exact_type(hidden.dtype), device=hidden.device)
    for part, log_t in chunks(hidden, head):
        values[part], ids[part] = log_t.topk(k)
    return ids, values.exp_()


def chunks(hidden: torch.Tensor, head: torch.Tensor):
    """(slice of the rows, their log-probabilities [n, V]), one chunk at a time."""
    rows = chunk_rows(head.shape[0])
    memory = chunk_memory(rows, len(hidden), head)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        yield part, log_softmax_(chunk_logits(hidden[part], head, memory))
