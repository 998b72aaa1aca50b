"""Losses on hidden states: the logits exist only for a chunk of rows at a time.

A position counts if its input token is not the end-of-text token and it has a label inside the
row; the loss of a sequence is the mean over its counted positions, that of a batch the mean over
its sequences (sequences without a counted position add 0 and stay in the denominator).
"""

from collections.abc import Callable

import torch

CHUNK_ELEMENTS = 1 << 25  # logits of one chunk: 128 MiB in fp32
# Probabilities below 6e-8 are 0 in fp16, and those below 6e-5 have few bits: they enter products
# times this, which is taken out again in fp32. Without it rare tokens' gradients are 5-17 % low.
FP16_ROOM = 2.0**15


def inputs_and_labels(
    tokens: torch.Tensor, lengths: torch.Tensor, eos_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(inputs, labels, counted), each [B, L-1], from right-padded rows [B, L] and lengths [B].

    What is padding comes from the lengths, never from ids: the padding token is the end-of-text.
    """
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    positions = torch.arange(inputs.shape[1], device=tokens.device)
    counted = (positions < (lengths - 1)[:, None]) & (inputs != eos_id)
    return inputs, labels, counted


def sequence_mean_weights(counted: torch.Tensor) -> torch.Tensor:
    """Weight of each position in the batch loss, [B, T] fp32: 1 / (counted of its row x B)."""
    per_row = counted.sum(dim=1, keepdim=True).clamp(min=1)
    return counted / (per_row * counted.shape[0]).float()


def chunk_rows(vocab_size: int) -> int:
    """Rows of a chunk whose logits have CHUNK_ELEMENTS entries."""
    return max(1, CHUNK_ELEMENTS // vocab_size)


def label_log_probs(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, rows: int | None = None
) -> torch.Tensor:
    """Natural log-probability of each label, [N] fp32; arguments as in label_scores."""
    return label_scores(hidden, head, labels, rows)[0]


@torch.no_grad()
def label_scores(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, rows: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(natural log-probability of each label [N] fp32, whether no other id has a higher one [N]).

    hidden [N, H], head [V, H], labels [N]. Without gradients; the logits of a chunk of rows are
    overwritten in place.
    """
    rows = rows or 2 * chunk_rows(head.shape[0])
    found = torch.empty(len(labels), dtype=exact_type(hidden.dtype), device=hidden.device)
    greedy = torch.empty(len(labels), dtype=torch.bool, device=hidden.device)
    memory = chunk_memory(rows, len(labels), head)
    for start in range(0, len(labels), rows):
        part = slice(start, start + rows)
        logits = chunk_logits(hidden[part], head, memory)
        logits.sub_(logits.amax(dim=1, keepdim=True))
        chosen = logits.gather(1, labels[part, None]).squeeze(1)
        greedy[part] = chosen == 0
        found[part] = chosen - logits.exp_().sum(dim=1).log_()
    return found, greedy


def exact_type(dtype: torch.dtype) -> torch.dtype:
    """What losses on values of this type are computed in: at least fp32."""
    return torch.promote_types(dtype, torch.float32)


def chunk_memory(rows: int, count: int, head: torch.Tensor) -> torch.Tensor:
    """Memory for the chunks' logits on a CPU: getting it anew would cost more than softmax."""
    size = 0 if head.is_cuda else min(rows, count)
    return torch.empty(size, head.shape[0], dtype=exact_type(head.dtype), device=head.device)


def chunk_logits(hidden: torch.Tensor, head: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """hidden [N, H] head^T [V, H] in fp32, [N, V]; never rounded to half precision on a GPU."""
    if hidden.is_cuda:
        return _product(hidden, head.T)
    logits = memory[: len(hidden)]
    if hidden.dtype == logits.dtype:
        return torch.mm(hidden, head.T, out=logits)
    return logits.copy_(hidden @ head.T)


def weighted_cross_entropy(
    hidden: torch.Tensor,
    head: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    rows: int | None = None,
) -> torch.Tensor:
    """sum_n weights[n] * -log softmax(hidden[n] head^T)[labels[n]], a scalar in fp32.

    hidden [N, H], head [V, H], labels [N], weights [N] fp32. Rows of weight 0 cost nothing. Both
    gradients are computed in the forward pass, one chunk at a time, and kept in fp32.
    """

    def rule(logits: torch.Tensor, at: torch.Tensor, room: float | None) -> Values:
        label = labels[at, None]
        logits.sub_(logits.amax(dim=1, keepdim=True))
        chosen = logits.gather(1, label).squeeze(1)
        total = logits.exp_().sum(dim=1)
        loss = total.log() - chosen
        if room is None:
            return {"loss": loss}, None
        # probabilities less 1 at the label, times room
        slope = logits.mul_((room / total)[:, None])
        return {"loss": loss}, slope.scatter_add_(1, label, slope.new_full(label.shape, -room))

    return head_loss(hidden, head, weights, rule, rows)[0]


Values = tuple[dict[str, torch.Tensor], torch.Tensor | None]
# (logits [n, V] of a chunk, which it may overwrite; which rows they are [n]; room or None) ->
# (figures [n] of these rows, "loss" first; room x d loss / d logits [n, V], None without room).
Rule = Callable[[torch.Tensor, torch.Tensor, float | None], Values]


def head_loss(
    hidden: torch.Tensor,
    head: torch.Tensor,
    weights: torch.Tensor,
    rule: Rule,
    rows: int | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(sum_n weights[n] x loss of row n, the same sums of the rule's other figures), scalars.

    hidden [N, H], head [V, H], weights [N] fp32. The logits of `rows` rows exist at a time; both
    gradients are computed in the forward pass. Only the loss can be differentiated.
    """
    names: list[str] = []
    loss, *others = _HeadLoss.apply(hidden, head, weights, rule, rows, names)
    return loss, dict(zip(names, others, strict=True))


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, head, weights, rule, rows, names):
        rows = rows or chunk_rows(head.shape[0])
        exact = exact_type(hidden.dtype)
        counted = weights.nonzero().squeeze(1)
        want_hidden, want_head = ctx.needs_input_grad[:2]
        grad_hidden = hidden.new_zeros(hidden.shape, dtype=exact) if want_hidden else None
        grad_head = head.new_zeros(head.shape, dtype=exact) if want_head else None
        # Weights near 1e-4 would push products below fp16's range: the product takes weights
        # relative to the largest, which is multiplied back in fp32.
        largest = weights.max()
        room = FP16_ROOM if hidden.dtype == torch.float16 else 1.0
        wanted = room if want_hidden or want_head else None
        sums: dict[str, torch.Tensor] = {}
        memory = chunk_memory(rows, len(counted), head)
        # Without a counted row the rule is asked about none, for the names of its figures.
        for start in range(0, max(len(counted), 1), rows):
            at = counted[start : start + rows]
            part, weight = hidden[at], weights[at]
            values, slope = rule(chunk_logits(part, head, memory), at, wanted)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + (weight * value).sum()
            if slope is None:
                continue
            slope = slope.to(part.dtype)
            if want_hidden:
                grad_hidden[at] = _product(slope, head) * (weight / room)[:, None]
            if want_head:
                relative = (weight / largest)[:, None].to(part.dtype)
                _add_product(grad_head, slope.T, part * relative)
        if want_head:
            grad_head.mul_(largest / room)
        ctx.dtypes = hidden.dtype, head.dtype
        ctx.save_for_backward(grad_hidden, grad_head)
        names += list(sums)[1:]
        ctx.mark_non_differentiable(*list(sums.values())[1:])
        return tuple(sums.values())

    @staticmethod
    def backward(ctx, grad, *_):
        # In place: the head's gradient is 0.9 GB at 1.2B. A second backward through the same loss
        # is refused by autograd, which sees that what it saved has changed.
        grad_hidden, grad_head = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden.mul_(grad).to(ctx.dtypes[0])
        if grad_head is not None:
            grad_head = grad_head.mul_(grad).to(ctx.dtypes[1])
        return grad_hidden, grad_head, None, None, None, None


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """total += a @ b in total's type; operands of that type need no second matrix of its size."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(_product(a, b))


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in at least fp32, whatever the operands' type."""
    if a.dtype == exact_type(a.dtype):
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()
