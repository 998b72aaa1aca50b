"""Losses on hidden states: logits exist only for one chunk of rows at a time.

A position counts if its input token is not the end-of-text token and it has a label inside the
row; the loss of a sequence is the mean over its counted positions, that of a batch the mean over
its sequences (sequences without a counted position add 0 and stay in the denominator).
"""

import torch

CHUNK_ELEMENTS = 1 << 25  # logits of one chunk: 128 MiB in fp32
# In fp16 probabilities below 6e-8 are 0, and those below 6e-5 have few bits. So products take them
# times this factor, which fp32 takes out again. Else rare tokens' gradients would be 5-17 % low.
FP16_ROOM = 2.0**15


def inputs_and_labels(
    tokens: torch.Tensor, lengths: torch.Tensor, eos_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(inputs, labels, counted), each [B, L-1], from right-padded rows [B, L] and lengths [B].

    Lengths, never ids, say what is padding: the padding token is the end-of-text.
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


@torch.no_grad()
def label_log_probs(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, rows: int | None = None
) -> torch.Tensor:
    """Natural log-probability of each label, [N] fp32; hidden [N, H], head [V, H], labels [N].

    Without gradients; the logits of a chunk of rows are overwritten in place.
    """
    rows = rows or 2 * chunk_rows(head.shape[0])
    found = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    memory = _chunk_memory(rows, len(labels), head)
    for start in range(0, len(labels), rows):
        part = slice(start, start + rows)
        logits = _logits(hidden[part], head, memory)
        logits.sub_(logits.amax(dim=1, keepdim=True))
        chosen = logits.gather(1, labels[part, None]).squeeze(1)
        found[part] = chosen - logits.exp_().sum(dim=1).log_()
    return found


def _chunk_memory(rows: int, count: int, head: torch.Tensor) -> torch.Tensor:
    """Memory for the chunks' logits on a CPU: getting it anew would cost more than softmax."""
    size = 0 if head.is_cuda else min(rows, count)
    return torch.empty(size, head.shape[0], dtype=torch.float32, device=head.device)


def _logits(hidden: torch.Tensor, head: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
    """hidden [N, H] head^T [V, H] in fp32, [N, V]; never rounded to half precision on a GPU."""
    if hidden.is_cuda:
        return _product(hidden, head.T)
    logits = memory[: len(hidden)]
    if hidden.dtype == torch.float32:
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
    gradients are computed in the forward pass, chunk by chunk, and kept in fp32.
    """
    return _WeightedCrossEntropy.apply(hidden, head, labels, weights, rows)


class _WeightedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, head, labels, weights, rows):
        rows = rows or chunk_rows(head.shape[0])
        counted = weights.nonzero().squeeze(1)
        want_hidden, want_head = ctx.needs_input_grad[:2]
        grad_hidden = hidden.new_zeros(hidden.shape, dtype=torch.float32) if want_hidden else None
        grad_head = head.new_zeros(head.shape, dtype=torch.float32) if want_head else None
        # Weights near 1e-4 would push products below fp16's range: the product takes weights
        # relative to the largest, which is multiplied back in fp32.
        largest = weights.max()
        room = FP16_ROOM if hidden.dtype == torch.float16 else 1.0
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        memory = _chunk_memory(rows, len(counted), head)
        for start in range(0, len(counted), rows):
            at = counted[start : start + rows]
            part, weight, label = hidden[at], weights[at], labels[at, None]
            logits = _logits(part, head, memory)
            logits.sub_(logits.amax(dim=1, keepdim=True))
            chosen = logits.gather(1, label).squeeze(1)
            total = logits.exp_().sum(dim=1)
            loss += (weight * (total.log() - chosen)).sum()
            if not (want_hidden or want_head):
                continue
            # d loss / d logits without the weight: (probabilities - 1 at the label) x room
            slope = logits.mul_((room / total)[:, None])
            slope.scatter_add_(1, label, slope.new_full(label.shape, -room))
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
        return loss

    @staticmethod
    def backward(ctx, grad):
        # In place: the 1.2B model's gradient of the head is 0.9 GB. Autograd refuses a second
        # backward through the same loss, because the saved tensors have changed.
        grad_hidden, grad_head = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden.mul_(grad).to(ctx.dtypes[0])
        if grad_head is not None:
            grad_head = grad_head.mul_(grad).to(ctx.dtypes[1])
        return grad_hidden, grad_head, None, None, None


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """total += a @ b in fp32; operands in fp32 need no second matrix of total's size."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    else:
        total.add_(_product(a, b))


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in fp32, whatever the operands' type."""
    if a.dtype == torch.float32:
        return a @ b
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()
