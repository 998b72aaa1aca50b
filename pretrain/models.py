"""Causal language models as the stages use them: hidden states and an output head."""

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from data_utils import artefact, disk
from data_utils.errors import EnvironmentFault, InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Precision = Literal["auto", "fp16", "bf16", "fp32"]  # auto: fp16 on a GPU, fp32 on a CPU
Attention = Literal["sdpa", "eager", "flash_attention_2"]
GET_MODEL = "run tools/get_models.py, train it, or give the right folder (MODEL_PATH)"


def resolve_precision(precision: str) -> str:
    """auto is fp16 on a GPU (the original's), fp32 on a CPU; the impossible is refused."""
    if precision == "auto":
        return "fp16" if torch.cuda.is_available() else "fp32"
    if precision == "fp16" and not torch.cuda.is_available():
        raise EnvironmentFault(
            "PRECISION=fp16 needs a GPU and there is none", fix="use PRECISION=fp32 (or bf16)"
        )
    return precision


def new_model(config_file: Path, seed: int, attention: str) -> nn.Module:
    """A model initialised from a Hugging Face config file, in fp32, the same for the same seed."""
    from transformers import AutoConfig, AutoModelForCausalLM

    values = read_config(config_file)
    torch.manual_seed(seed)
    try:
        config = AutoConfig.for_model(**values)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, **_attention(config, attention)
        )
    except Exception as error:  # many classes, one meaning: transformers makes no model of it
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"no model can be made of the configuration ({reason})",
            where=config_file,
            fix="mend it (MODEL_CONFIG), or choose another ATTENTION",
        ) from error
    check_head(model)
    return model


def read_config(config_file: Path) -> dict:
    """A model configuration as plain values; it must name its model_type."""
    fix = "give a Hugging Face config.json (MODEL_CONFIG), e.g. configs/models/qwen/200M.json"
    if not config_file.is_file():
        raise InputError("there is no model configuration", where=config_file, fix=fix)
    values = disk.read_json(config_file, fix)
    if not isinstance(values, dict) or "model_type" not in values:
        raise InputError("the configuration has no model_type", where=config_file, fix=fix)
    return values


def load_model(folder: Path, precision: str, attention: str, fix: str = GET_MODEL) -> nn.Module:
    """A trained model from its folder; its checksums are compared first where there are any."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # one bar a stage: the work's own
    artefact.require(folder, "model", fix, contents=True)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=PRECISIONS[precision],
            local_files_only=True,
            output_loading_info=True,
            **_attention(config, attention),
        )
    except Exception as error:  # many classes, one meaning: these files are no model
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"the model cannot be read ({reason})", where=folder, fix=fix) from error
    if loaded["missing_keys"]:  # transformers would go on with random ones
        missing = ", ".join(sorted(loaded["missing_keys"])[:3])
        raise InputError(f"weights of the model are missing ({missing})", where=folder, fix=fix)
    check_head(model)
    return model


def save_memory(model: nn.Module) -> None:
    """Recompute each layer's activations in the backward pass instead of keeping them."""
    if not model.supports_gradient_checkpointing:
        raise InputError(
            f"{type(model).__name__} cannot recompute activations", fix="set GRAD_CHECKPOINT=false"
        )
    model.activation_checkpointing_enable({"use_reentrant": False})


def compile_trunk(model: nn.Module) -> None:
    """torch.compile all but the head, in place, and try it: what fails is the machine's fault."""
    model.base_model.compile(dynamic=True)
    probe = torch.arange(8, device=model.device)[None] % model.config.vocab_size
    try:
        with torch.no_grad():
            hidden_states(model, probe)
    except Exception as error:  # many classes, one meaning: there is no compiler for it here
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise EnvironmentFault(
            f"torch.compile does not work here ({reason})", fix="set COMPILE=false"
        ) from error


def _attention(config, attention: str) -> dict:
    """The argument that chooses the attention, for models that have one (a Mamba has none)."""
    return {"attn_implementation": attention} if hasattr(config, "num_attention_heads") else {}


def hidden_states(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Last hidden states after the final norm, [B, T, H], for inputs [B, T] padded on the right.

    Attention is causal over the whole row, so padding behind needs no mask. They have the head's
    type: Mamba keeps its residual stream in fp32 and transformers casts it before the head, too.
    """
    hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
    return hidden.to(head_weight(model).dtype)


def head_weight(model: nn.Module) -> torch.Tensor:
    """The output head's weight, [V, H]."""
    return model.get_output_embeddings().weight


@torch.no_grad()
def check_head(model: nn.Module) -> None:
    """Refuse models whose logits are more than hidden states times the head's weight."""
    model.eval()  # with dropout no two passes agree
    probe = torch.arange(8, device=model.device)[None] % model.config.vocab_size
    logits = model(input_ids=probe, use_cache=False).logits.float()
    ours = (hidden_states(model, probe) @ head_weight(model).T).float()
    largest = float(logits.abs().nan_to_num(0.0, 0.0).max())
    same = torch.allclose(logits, ours, rtol=1e-2, atol=1e-2 * largest, equal_nan=True)
    # The logits of an untrained model are too small for a cap to show.
    if not same or getattr(model.config, "final_logit_softcapping", None):
        raise InputError(
            f"the logits of {type(model).__name__} are not hidden states times the output head "
            "(soft-capping or scaling?)",
            fix="use another model, or extend pretrain/models.py",
        )


def count_parameters(model: nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
