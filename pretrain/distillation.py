"""Distillation losses on hidden states: a student's chunk of logits against a teacher's target.

Each function gives a rule for pretrain/losses.head_loss. A row's loss is (1 - share) x
cross-entropy to the label + share x distance to the teacher; q is the student's distribution, t the
teacher's.
Forward: cross-entropy of q to t, which is KL(t || q) plus t's entropy (Hinton et al., arXiv
1503.02531; the paper, arXiv 2410.17215, section 3.1, has share 0.5 and temperature 1). Reverse:
KL(q || t) (Gu et al., arXiv 2306.08543). Stored targets: N ids drawn from t (Anshumann et al.,
arXiv 2503.16870), or its top k ids with the probability of the remainder.
"""

import torch

from pretrain.losses import Rule, Values, chunk_logits, chunk_memory, chunk_rows, exact_type


def live_rule(
    labels: torch.Tensor,
    share: torch.Tensor,
    teacher_hidden: torch.Tensor,
    teacher_head: torch.Tensor,
    temperature: float = 1.0,
    *,
    reverse: bool = False,
) -> Rule:
    """Against the teacher's whole distribution, whose logits exist for one chunk at a time.

    labels [N], share [N], teacher_hidden [N, H'], teacher_head [V, H']. Figures: lm_loss, kd_loss,
    kd_entropy (of t), kl. Both distributions are softmax(logits / temperature) in kd_loss.
    """

    def rule(logits: torch.Tensor, at: torch.Tensor, room: float | None) -> Values:
        memory = chunk_memory(len(at), len(at), teacher_head)
        log_t = log_softmax_(
            chunk_logits(teacher_hidden[at], teacher_head, memory).to(logits.dtype), temperature
        )
        t = log_t.exp()
        entropy = -dots(t, log_t)
        scaled = log_softmax_(logits / temperature) if temperature != 1 else None
        log_q = log_softmax_(logits)
        scaled = log_q if scaled is None else scaled
        lm_loss = -log_q.gather(1, labels[at, None]).squeeze(1)
        if reverse:
            q = scaled.exp()
            kl = dots(q, scaled) - dots(q, log_t)
            kd_loss = kl
            # d KL(q || t) / d z_j = q_j (log q_j - log t_j - KL)
            kd_slope = log_t.neg_().add_(scaled).sub_(kl[:, None]).mul_(q)
        else:
            kd_loss = -dots(t, scaled)
            kl = kd_loss - entropy
            kd_slope = (scaled.exp() if scaled is log_q else scaled.exp_()).sub_(t)
        figures = mixed(lm_loss, kd_loss, share[at]) | {"kd_entropy": entropy, "kl": kl}
        if room is None:
            return figures, None
        return figures, mixed_slope(log_q, kd_slope, labels, share, at, room, temperature)

    return rule


def stored_rule(
    labels: torch.Tensor,
    share: torch.Tensor,
    ids: torch.Tensor,
    probabilities: torch.Tensor,
    *,
    remainder: bool = False,
) -> Rule:
    """Against a stored part of the teacher's distribution, at temperature 1.

    ids [N, E] and their probabilities [N, E], 0 where a row has fewer than E. Draws: count / number
    of draws, which sum to 1. remainder: a top-k store, whose missing mass is matched as one event.
    Figures: lm_loss, kd_loss. A row without probabilities has kd_loss 0.
    """

    def rule(logits: torch.Tensor, at: torch.Tensor, room: float | None) -> Values:
        kept, t = ids[at], probabilities[at].to(logits.dtype)
        log_q = log_softmax_(logits)
        lm_loss = -log_q.gather(1, labels[at, None]).squeeze(1)
        log_q_kept = log_q.gather(1, kept)
        kd_loss = -(t * log_q_kept).sum(dim=1)
        mass = t.sum(dim=1)
        if remainder:
            inside = (log_q_kept.exp() * (t > 0)).sum(dim=1).clamp(max=1 - 1e-6)
            rest = (1 - mass).clamp(min=0)
            kd_loss = kd_loss - rest * torch.log1p(-inside)
            # On the kept ids the slope is q - t; elsewhere scale x q (see the formula's source).
            scale = mass + rest - rest / (1 - inside)
        else:
            scale = mass
        figures = mixed(lm_loss, kd_loss, share[at])
        if room is None:
            return figures, None
        kd_slope = log_q.exp().mul_(scale[:, None])
        added = -t
        if remainder:
            added = added + (mass + rest - scale)[:, None] * log_q_kept.exp() * (t > 0)
        kd_slope.scatter_add_(1, kept, added)
        return figures, mixed_slope(log_q, kd_slope, labels, share, at, room, 1.0)

    return rule


def mixed(lm_loss: torch.Tensor, kd_loss: torch.Tensor, share: torch.Tensor) -> dict:
    """The loss of rows and its two parts, [n] each."""
    loss = (1 - share) * lm_loss + share * kd_loss
    return {"loss": loss, "lm_loss": lm_loss, "kd_loss": kd_loss}


def mixed_slope(
    log_q: torch.Tensor,
    kd_slope: torch.Tensor,
    labels: torch.Tensor,
    share: torch.Tensor,
    at: torch.Tensor,
    room: float,
    temperature: float,
) -> torch.Tensor:
    """room x the slope of the mixed loss by the logits; overwrites log_q and kd_slope."""
    share, label = share[at, None].to(log_q.dtype), labels[at, None]
    slope = log_q.exp_().mul_((1 - share) * room)
    slope.scatter_add_(1, label, (share - 1) * room)
    return slope.add_(kd_slope.mul_(share * (room / temperature)))


@torch.no_grad()
def teacher_entropy(
    hidden: torch.Tensor, head: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Entropy in nats of the teacher's distribution at each of the hidden states [N, H], [N]."""
    rows = chunk_rows(head.shape[0])
    found = torch.empty(len(hidden), dtype=exact_type(hidden.dtype), device=hidden.device)
    memory = chunk_memory(rows, len(hidden), head)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        log_t = log_softmax_(chunk_logits(hidden[part], head, memory), temperature)
        found[part] = -dots(log_t.exp(), log_t)
    return found


def log_softmax_(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """log softmax(logits / temperature) of each row, in place."""
    if temperature != 1:
        logits.div_(temperature)
    return logits.sub_(logits.logsumexp(dim=1, keepdim=True))


def dots(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Dot products of the rows of [n, V] and [n, V], [n]."""
    # Not bmm: it adds 151,936 products one by one, which in fp32 is 1e-4 off.
    return (a * b).sum(dim=1)
