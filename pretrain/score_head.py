"""A head that gives each row one number, on the trunk of a language model.

A row's number is the mean over its counted positions of a linear function of the last hidden state,
because r is such a mean (pretrain/losses.py says what counts). The head predicts standardised
numbers; config.json has the mean and the standard deviation that make nats of them.
"""

from pathlib import Path

import torch
from torch import nn

from data_utils.errors import InputError
from pretrain.models import load_model

NAME = "score_head"  # of the module in the model
WEIGHTS = frozenset({f"{NAME}.weight", f"{NAME}.bias"})
MEAN, STD = "score_mean", "score_std"  # in config.json
TRAIN = "train it with scripts/miniplm/proxy/train.sh"


def add_score_head(model: nn.Module, mean: float, std: float) -> nn.Linear:
    """Give the model a head of zeros, which predicts the mean of every row; in fp32."""
    embedding = model.get_input_embeddings().weight
    head = nn.Linear(model.config.hidden_size, 1, device=embedding.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model.add_module(NAME, head)
    model.config.update({MEAN: mean, STD: std})
    return head


def load_scorer(folder: Path, precision: str, attention: str, fix: str = TRAIN) -> nn.Module:
    """A model with its head, which stays in fp32; InputError for a model without one."""
    from safetensors import safe_open

    weights, path = {}, folder / "model.safetensors"
    if path.is_file():
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) for name in WEIGHTS & set(file.keys())}
    if len(weights) < len(WEIGHTS):
        raise InputError("the model has no head that scores rows", where=folder, fix=fix)
    model = load_model(folder, precision, attention, fix, besides=WEIGHTS)
    head = add_score_head(model, getattr(model.config, MEAN), getattr(model.config, STD))
    head.load_state_dict({name.removeprefix(f"{NAME}."): w for name, w in weights.items()})
    return model


def position_scores(head: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    """The linear function of hidden states [..., H] in fp32, [...]."""
    weight, bias = head.weight.float(), head.bias.float()
    return nn.functional.linear(hidden.float(), weight, bias).squeeze(-1)


def row_means(scores: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Means of scores [B, T] over the counted [B, T] positions of each row, [B]; 0 without one."""
    return torch.where(counted, scores, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
