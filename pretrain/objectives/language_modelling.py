"""The language-modelling objective: the mean over sequences of their mean cross-entropy."""

import torch
from torch import nn

from pretrain.losses import inputs_and_labels, sequence_mean_weights, weighted_cross_entropy
from pretrain.models import head_weight, hidden_states


class Objective(nn.Module):
    """Takes a micro-batch, returns its loss (scalar, fp32) and named figures."""

    def __init__(self, model: nn.Module, eos_id: int) -> None:
        super().__init__()
        self.model, self.eos_id = model, eos_id

    def forward(
        self, tokens: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """tokens: [B, L] rows padded on the right; lengths: [B] their real tokens."""
        inputs, labels, counted = inputs_and_labels(tokens, lengths, self.eos_id)
        hidden = hidden_states(self.model, inputs)
        loss = weighted_cross_entropy(
            hidden.flatten(0, 1),
            head_weight(self.model),
            labels.flatten(),
            sequence_mean_weights(counted).flatten(),
        )
        return loss, {}
