"""Language modelling: the mean over sequences of their mean cross-entropy, in nats per token."""

import torch
from torch import nn

from pretrain import objective
from pretrain.losses import inputs_and_labels, sequence_mean_weights, weighted_cross_entropy
from pretrain.models import head_weight, hidden_states


def batch_loss(
    model: nn.Module, tokens: torch.Tensor, lengths: torch.Tensor, eos_id: int
) -> torch.Tensor:
    """The loss of rows [B, L] padded on the right, with lengths [B] of real tokens; fp32 scalar."""
    inputs, labels, counted = inputs_and_labels(tokens, lengths, eos_id)
    return weighted_cross_entropy(
        hidden_states(model, inputs).flatten(0, 1),
        head_weight(model),
        labels.flatten(),
        sequence_mean_weights(counted).flatten(),
    )


class Objective(objective.Objective):
    """No flags, inputs or state of its own."""

    def loss(self, micro: objective.Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        tokens, lengths = micro["tokens"], micro["lengths"]
        return batch_loss(self.student, tokens, lengths, self.context.eos_id), {}
