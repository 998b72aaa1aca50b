"""Floating point operations of models, and the peaks of devices: what a run costs, and its MFU."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from pretrain.models import GET_MODEL, count_parameters, head_weight, raised_as

# Dense peaks in TFLOP/s (fp16 or bf16, fp32) from the makers' data sheets, by the words of a
# device's name; the more specific names come first.
PEAKS = (
    ({"H100", "PCIe"}, (756, 51)),
    ({"H100", "NVL"}, (835, 60)),
    ({"H100"}, (989, 67)),
    ({"H200"}, (989, 67)),
    ({"H800"}, (989, 67)),
    ({"A100"}, (312, 19.5)),
    ({"A800"}, (312, 19.5)),
    ({"L40S"}, (362, 91.6)),
    ({"L4"}, (121, 30.3)),
    ({"A10"}, (125, 31.2)),
    ({"V100"}, (125, 15.7)),
    ({"T4"}, (65, 8.1)),
    ({"4090"}, (165, 82.6)),
    ({"3090"}, (71, 35.6)),
)


def outline(folder: Path) -> nn.Module:
    """The model of a folder without its weights, to be counted; InputError if there is none."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with raised_as(InputError, "the model cannot be read", GET_MODEL, folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)


def forward_flops(model: nn.Module, length: float) -> float:
    """FLOPs per token of a forward pass over causal sequences of this mean length.

    2 for each weight of a matrix product (the head is one, the input embedding is not), and per
    layer 4 x hidden for each of the length / 2 positions that a token attends to.
    """
    config = model.config
    weights = count_parameters(model)
    embedding = model.get_input_embeddings().weight
    if embedding is not head_weight(model):
        weights -= embedding.numel()
    heads = getattr(config, "num_attention_heads", 0)  # a Mamba model has none
    width = getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1)
    return 2 * weights + 2 * config.num_hidden_layers * heads * width * length


def trunk_flops(model: nn.Module, length: float) -> float:
    """The same without the output head's product, with embeddings tied to the head or not."""
    return forward_flops(model, length) - 2 * head_weight(model).numel()


def corpus_flops(
    model_folder: Path, corpus: Corpus, of_model: Callable[..., float] = forward_flops
) -> float:
    """FLOPs of one forward pass over a corpus; of the model only config.json is read.

    of_model: trunk_flops for a pass that does not use the output head.
    """
    tokens = sum(shard.size for shard in corpus.shards)
    return of_model(outline(model_folder), tokens / max(len(corpus), 1)) * tokens


def peak_flops(device_name: str, precision: str) -> float | None:
    """Peak FLOP/s of a device, None if it is not known."""
    words = set(re.split(r"[\s-]+", device_name))
    for name, peaks in PEAKS:
        if name <= words:
            return 1e12 * peaks[precision == "fp32"]
    return None
