"""Causal language models as the stages use them: hidden states and an output head."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from data_utils import artefact, atomic_files
from data_utils.errors import EnvironmentFault, InputError, ProgramError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Precision = Literal["auto", "fp16", "bf16", "fp32"]  # auto: fp16 on a GPU, fp32 on a CPU
Attention = Literal["sdpa", "eager", "flash_attention_2"]
# What transformers finds when it loads weights into a model, and would merely warn of.
KEYS = {
    "missing_keys": "weights of the model are missing",
    "unexpected_keys": "the model has no place for some weights",
    "mismatched_keys": "weights have shapes other than the model's",
}
# Factors and caps that architectures apply to their logits behind the head: the neutral value.
BEHIND_THE_HEAD = {
    "final_logit_softcapping": None,
    "logit_scale": 1.0,
    "logits_scaling": 1.0,
    "lm_head_multiplier": 1.0,
}
GET_MODEL = "run tools/get_models.py, train it, or give the right folder (MODEL_PATH)"


def resolve_precision(precision: str) -> str:
    """auto is fp16 on a GPU (as in the original), else fp32; EnvironmentFault for fp16 there."""
    if precision == "auto":
        return "fp16" if torch.cuda.is_available() else "fp32"
    if precision == "fp16" and not torch.cuda.is_available():
        raise EnvironmentFault(
            "PRECISION=fp16 needs a GPU, and there is none", fix="use PRECISION=fp32 (or bf16)"
        )
    return precision


@contextlib.contextmanager
def raised_as(
    kind: type[ProgramError], what: str, fix: str, where: Path | None = None
) -> Iterator[None]:
    """Around calls of libraries whose many classes of errors have one meaning for the user."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise kind(f"{what} ({reason})", where=where, fix=fix) from error


def new_model(config_file: Path, seed: int, attention: str) -> nn.Module:
    """A model of a Hugging Face config file, in fp32, initialised by the seed; else InputError."""
    from transformers import AutoConfig, AutoModelForCausalLM

    values = read_config(config_file)
    torch.manual_seed(seed)
    fix = "correct it (MODEL_CONFIG), or choose another ATTENTION"
    with raised_as(InputError, "the configuration does not make a model", fix, config_file):
        config = AutoConfig.for_model(**values)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, **_attention(config, attention)
        )
    check_head(model)
    return model


def try_saved(model: nn.Module) -> None:
    """InputError if transformers could not open this model's checkpoints: before the first step."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    what = f"transformers could not open what would be saved of {type(model).__name__}"
    fix = "correct the configuration (MODEL_CONFIG, or config.json in MODEL_PATH)"
    with tempfile.TemporaryDirectory(prefix="miniplm-model-") as folder:
        for name, values in descriptions(model).items():
            atomic_files.write_json(Path(folder, name), values)
        with raised_as(InputError, what, fix):
            GenerationConfig.from_pretrained(folder, local_files_only=True).validate(strict=True)
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            with torch.device("meta"):
                saved = AutoModelForCausalLM.from_config(config)
            found = {name: t.shape for name, t in saved.state_dict().items()}
            expected = {name: t.shape for name, t in model.state_dict().items()}
            if found != expected:
                names = sorted(name for name, _ in found.items() ^ expected.items())
                raise ValueError(f"other weights: {', '.join(names[:3])}")


def descriptions(model: nn.Module) -> dict[str, dict]:
    """config.json and generation_config.json of a checkpoint.

    An end-of-text of several ids (Llama 3, Qwen's chat models) stays; the first one is the padding.
    """
    config = model.config.to_dict()
    config.update(dtype="float32", architectures=[type(model).__name__])
    eos = config.get("eos_token_id")
    first = eos[0] if isinstance(eos, list) and eos else eos
    if isinstance(config.get("pad_token_id"), list):
        config["pad_token_id"] = first
    generation = {"eos_token_id": eos, "pad_token_id": first}
    return {"config.json": config, "generation_config.json": generation}


def read_config(config_file: Path) -> dict:
    """A model configuration as plain values; InputError if there is none or no model_type in it."""
    fix = "give a Hugging Face config.json (MODEL_CONFIG), e.g. configs/models/qwen/200M.json"
    values = atomic_files.read_json(config_file, fix) if config_file.is_file() else None
    if not isinstance(values, dict) or "model_type" not in values:
        what = "there is no model configuration with a model_type"
        raise InputError(what, where=config_file, fix=fix)
    return values


def load_model(
    folder: Path,
    precision: str,
    attention: str,
    fix: str = GET_MODEL,
    besides: frozenset[str] = frozenset(),
) -> nn.Module:
    """A trained model from its folder, its checksums compared first if it has a manifest.

    besides: weights in its files that are not the language model's; the caller loads them.

    InputError for files that are not a whole model with a plain head, ArtefactError for damage.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # each stage has one bar: its own
    logging.set_verbosity_error()  # what it would warn of is an error here
    artefact.require(folder, "model", fix, contents=True)
    if (folder / "adapter_config.json").exists():
        raise InputError(
            "the folder has an adapter, which would not be applied",
            where=folder,
            fix="merge it into the weights, or move adapter_* out of the folder",
        )
    with raised_as(InputError, "the model cannot be read", fix, folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=PRECISIONS[precision],
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **_attention(config, attention),
        )
    for kind, what in KEYS.items():
        found = set(map(str, loaded[kind])) - besides
        if found:
            names = ", ".join(sorted(found)[:3])
            raise InputError(f"{what} ({names})", where=folder, fix=fix)
    check_head(model)
    check_tied(model, folder)
    return model


def check_tied(model: nn.Module, folder: Path) -> None:
    """InputError unless configuration and weights agree whether the head is the embedding."""
    tied = head_weight(model) is model.get_input_embeddings().weight
    said = bool(model.config.get_text_config().tie_word_embeddings)
    if tied != said:
        raise InputError(
            "tie_word_embeddings is not as in the weights",
            where=folder / "config.json",
            expected=tied,
            found=said,
            fix=f"write {str(tied).lower()} there, or get the right weights",
        )


def check_positions(config_file: Path, length: int) -> None:
    """InputError if rows of `length` tokens, label included, are too long for the model."""
    from transformers import AutoConfig

    values, config = read_config(config_file), None
    with contextlib.suppress(Exception):  # making or loading the model gives the better error
        config = AutoConfig.for_model(**values).get_text_config()
    names = ("max_position_embeddings", "max_seq_len")  # MPT has the second
    positions = next((n for n in (getattr(config, name, None) for name in names) if n), None)
    if positions and length - 1 > positions:
        raise InputError(
            "the model has fewer positions than the corpus's rows",
            where=config_file,
            expected=f"at least {length - 1}",
            found=positions,
            fix=f"tokenize with MAX_LENGTH={positions + 1}, or use another model",
        )


def save_memory(model: nn.Module) -> None:
    """Recompute each layer's activations in the backward pass; InputError if it cannot."""
    if not model.supports_gradient_checkpointing:
        raise InputError(
            f"{type(model).__name__} cannot recompute activations", fix="set GRAD_CHECKPOINT=false"
        )
    model.activation_checkpointing_enable({"use_reentrant": False})


def compile_trunk(model: nn.Module) -> None:
    """torch.compile all but the head, in place, and try it: EnvironmentFault if that fails."""
    model.base_model.compile(dynamic=True)
    probe = torch.arange(8, device=model.device)[None] % model.config.vocab_size
    what = "torch.compile does not work here"  # it may lack a compiler
    with raised_as(EnvironmentFault, what, "set COMPILE=false"), torch.no_grad():
        hidden_states(model, probe)


def _attention(config, attention: str) -> dict:
    """The argument that chooses the attention, for models with attention (not for a Mamba)."""
    return {"attn_implementation": attention} if hasattr(config, "num_attention_heads") else {}


def hidden_states(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Last hidden states after the final norm, [B, T, H], for inputs [B, T] padded on the right.

    Attention is causal over the whole row, so padding on the right needs no mask. The result has
    the head's type: Mamba's residual stream is fp32, which transformers casts before the head, too.
    """
    hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
    return hidden.to(head_weight(model).dtype)


def head_weight(model: nn.Module) -> torch.Tensor:
    """The output head's weight, [V, H]."""
    return model.get_output_embeddings().weight


def check_head(model: nn.Module) -> None:
    """InputError for models whose logits are more than hidden states times the head's weight."""
    reason = no_plain_head(model)
    if reason:
        raise InputError(
            f"the logits of {type(model).__name__} are not hidden states times the output head "
            f"({reason})",
            fix="use another model, or extend pretrain/models.py",
        )


@torch.no_grad()
def no_plain_head(model: nn.Module) -> str:
    """Why the chunked losses cannot compute a model's logits, or "".

    Found by structure: the configuration's factors, the head's bias, and a pass in which the head
    gets large hidden states, so that whatever follows it shows, however small its own are.
    """
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    if head is None or getattr(head, "weight", None) is None:
        return "there is no output head"
    for factor, plain in BEHIND_THE_HEAD.items():
        if getattr(config, factor, plain) not in (None, plain):
            return f"soft-capping or scaling: {factor}"
    if getattr(head, "bias", None) is not None:
        return "the head has a bias"
    model.eval()  # with dropout no two passes agree
    probe = torch.arange(8, device=model.device)[None] % config.vocab_size
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(1, 8, head.weight.shape[1], generator=generator).mul_(300)
    given = given.to(head.weight.device, head.weight.dtype)
    seen = []
    before = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]) or (given,))
    after = head.register_forward_hook(lambda _, inputs, output: seen.append(output))
    try:
        logits = model(input_ids=probe, use_cache=False).logits
    finally:
        before.remove()
        after.remove()
    if len(seen) != 2 or seen[0].shape != given.shape:
        return "the head is not used once"
    same = torch.allclose(seen[0], hidden_states(model, probe), rtol=1e-3, equal_nan=True)
    # Equal to the bit; weights that are not finite are left to the stage that meets them.
    nothing_follows = torch.allclose(
        logits.float(), seen[1].float(), rtol=0.0, atol=0.0, equal_nan=True
    )
    if not same or not nothing_follows:
        return "soft-capping or scaling"
    product = nn.functional.linear(given, head.weight)
    plain = torch.allclose(seen[1], product, rtol=1e-2, atol=1e-2, equal_nan=True)
    return "" if plain else "the head is not a matrix product"


def count_parameters(model: nn.Module) -> int:
    """The number of parameters; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())
