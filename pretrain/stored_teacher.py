"""What a stored teacher keeps of the live one, measured on a few rows before training."""

from pathlib import Path

import numpy as np
import torch

from data_utils.teacher_cache import TeacherCache
from pretrain.distillation import dots
from pretrain.draws import chunks
from pretrain.log_probs import counted_states
from pretrain.models import head_weight, load_model

TOKENS = 8192  # per forward pass


@torch.inference_mode()
def compared(
    cache: TeacherCache,
    teacher_folder: Path,
    rows: np.ndarray,
    eos_id: int,
    precision: str,
    device: torch.device,
) -> str:
    """In words: how far the stored distributions of these rows are from the teacher's own.

    The teacher must be the one that was stored; it is loaded for this alone.
    """
    corpus = cache.corpus
    teacher = load_model(teacher_folder, precision, "sdpa").eval().to(device)
    counts, ids, values = (torch.from_numpy(part) for part in cache.targets(rows))
    head, found = head_weight(teacher), []
    for batch, hidden in counted_states(teacher, corpus, rows, eos_id, TOKENS):
        there = torch.arange(ids.shape[1]) < counts[batch.at, None]
        stored = ids[batch.at][there].to(device), values[batch.at][there].to(device)
        for part, log_t in chunks(hidden, head):
            found.append(distances(log_t, *(x[part] for x in stored), top_k=cache.top_k))
    if not found:
        return "on nothing: these rows have no counted token"
    first, second = torch.cat(found).double().mean(dim=0).tolist()
    on = f"on {sum(map(len, found))} tokens of {len(rows)} rows"
    if cache.top_k:
        second = max(second, 0.0)  # half precision leaves it a little below
        return f"{on}: {first:.1%} of the teacher's mass, KL(teacher || stored) {second:.4f} nats"
    return (
        f"{on}: KL(draws || teacher) {first:.3f} nats, cross-entropy of the teacher to the draws "
        f"- its entropy {second:+.4f} nats (near 0: unbiased)"
    )


def distances(
    log_t: torch.Tensor, ids: torch.Tensor, stored: torch.Tensor, *, top_k: bool
) -> torch.Tensor:
    """Two figures of each position, [n, 2], from the teacher's log-probabilities [n, V].

    ids and stored [n, E]: stored probabilities, 0 for padding. Draws: KL(stored || teacher), and
    the cross-entropy of the teacher to them less its entropy. Top k: the stored mass, and
    KL(teacher || stored), all other ids taken as one.
    """
    log_kept, there = log_t.gather(1, ids), stored > 0
    if not top_k:
        drawn = -(stored * log_kept).sum(dim=1)
        own = torch.where(there, stored * stored.clamp(min=1e-30).log(), 0.0).sum(dim=1)
        return torch.stack([own + drawn, drawn + dots(log_t.exp(), log_t)], dim=1)
    kept, mass = log_kept.exp() * there, stored.sum(dim=1)
    ratio = torch.where(there, log_kept - stored.clamp(min=1e-30).log(), 0.0)
    rest, stored_rest = (1 - x.clamp(max=1 - 1e-6) for x in (kept.sum(dim=1), mass))
    kl = (kept * ratio).sum(dim=1) + rest * (rest / stored_rest).log()
    return torch.stack([mass, kl], dim=1)
