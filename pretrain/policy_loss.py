"""The loss of MiniLLM (Gu et al., arXiv 2306.08543) on sampled tokens, and their advantages.

q: the student, p: the teacher, b: what the tokens were sampled from. The gradient of KL(q || p) of
whole continuations is that of KL(q || p) at each sampled prefix (single_step, exact over the
vocabulary) plus a policy gradient whose return at a token is the reward of the tokens after it.
"""

import torch

from pretrain.distillation import dots, log_softmax_
from pretrain.losses import Rule, Values, chunk_logits, chunk_memory, head_loss

FLOOR = -1e4  # of log-probabilities: 0 x log 0 would be nan
REWARD_CLIP = 100.0
ROOM = 16.0  # see policy_loss


def returns(reward: torch.Tensor, gamma: float = 1.0, *, inclusive: bool = False) -> torch.Tensor:
    """sum over k > t of gamma^(k - t - 1) reward[:, k], [N, T]; inclusive: from k = t on."""
    found, total = torch.zeros_like(reward), torch.zeros_like(reward[:, 0])
    for t in reversed(range(reward.shape[1])):
        after, total = total, reward[:, t] + gamma * total
        found[:, t] = total if inclusive else after
    return found


def advantages(
    reward: torch.Tensor, gamma: float = 1.0, *, inclusive: bool = False, whiten: bool = False
) -> torch.Tensor:
    """Returns over the number of their terms, [N, T]; whiten: then of mean 0 and variance 1."""
    length = reward.shape[1]
    terms = torch.arange(length, 0, -1, device=reward.device) - int(not inclusive)
    found = returns(reward, gamma, inclusive=inclusive) / terms.clamp(min=1)
    if whiten:
        found = (found - found.mean()) * (found.var(correction=0) + 1e-8).rsqrt()
    return found


def log_mix(log_q: torch.Tensor, log_p: torch.Tensor, mix: float) -> torch.Tensor:
    """log((1 - mix) q + mix p); 0 <= mix < 1."""
    if mix == 0:
        return log_q
    weights = torch.tensor([1 - mix, mix], dtype=torch.float64).log().tolist()
    return torch.logaddexp(log_q + weights[0], log_p + weights[1])


def policy_loss(
    hidden: torch.Tensor,
    head: torch.Tensor,
    weights: torch.Tensor,
    sampled: dict[str, torch.Tensor],
    teacher_hidden: torch.Tensor,
    teacher_head: torch.Tensor,
    clip: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(sum_n weights[n] x (pg_loss + single_step) of token n, the figures' same sums), scalars.

    hidden [N, H], head [V, H], weights [N]; sampled: labels, log_b, advantage, each [N]; of the
    teacher [N, H'] and [V, H']. Figures: pg_loss, single_step, clipped (whether the clipping of
    q / b to 1 - clip .. 1 + clip takes the token's policy gradient away).
    """
    # In fp16 head_loss has room for slopes up to 2, and these grow with the advantage.
    scale = ROOM * sampled["advantage"].abs().clamp(min=1)
    rule = policy_rule(sampled, scale, teacher_hidden, teacher_head, clip)
    return head_loss(hidden, head, weights * scale, rule)


def policy_rule(
    sampled: dict[str, torch.Tensor],
    scale: torch.Tensor,
    teacher_hidden: torch.Tensor,
    teacher_head: torch.Tensor,
    clip: float,
) -> Rule:
    """policy_loss's values and slopes, each divided by scale [N]."""

    def rule(logits: torch.Tensor, at: torch.Tensor, room: float | None) -> Values:
        memory = chunk_memory(len(at), len(at), teacher_head)
        teacher = chunk_logits(teacher_hidden[at], teacher_head, memory).to(logits.dtype)
        log_p, log_q = (log_softmax_(each).clamp_(min=FLOOR) for each in (teacher, logits))
        label, advantage = sampled["labels"][at, None], sampled["advantage"][at]
        ratio = (log_q.gather(1, label).squeeze(1) - sampled["log_b"][at]).exp()
        free, held = -advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)
        pg_loss, clipped = torch.maximum(free, held), held > free
        q, gap = log_q.exp(), log_q.sub_(log_p)
        kl = dots(q, gap)
        found = {"loss": pg_loss + kl, "pg_loss": pg_loss, "single_step": kl, "clipped": clipped}
        found = {name: value / scale[at] for name, value in found.items()}
        if room is None:
            return found, None
        # d KL / d z_j = q_j (log q_j - log p_j - KL), d ratio / d z_j = ratio ([j = label] - q_j)
        pull = free.masked_fill(clipped, 0.0)
        slope = gap.sub_((kl + pull)[:, None]).mul_(q).scatter_add_(1, label, pull[:, None])
        return found, slope.mul_((room / scale[at])[:, None])

    return rule
