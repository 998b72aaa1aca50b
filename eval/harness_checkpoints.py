"""The checkpoints that the harness is asked to evaluate: found, checked and identified."""

import re
from pathlib import Path
from typing import NamedTuple

from data_utils import artefact
from data_utils.errors import InputError
from data_utils.flags import under
from data_utils.names import check_name
from data_utils.tokenizer import bos_id, load_tokenizer, tokenizer_fingerprint
from eval.weights import weights_hash
from pretrain.models import GET_MODEL, read_config

BOS_TYPES = ("llama", "mistral")


class Evaluated(NamedTuple):
    """A checkpoint to evaluate; model: path, fingerprint and hash of the weights."""

    name: str
    folder: Path
    model: dict
    tokenizer: str
    add_bos: bool
    step: int | None


def named(item: str) -> tuple[str, str]:
    """(name, path) of NAME=PATH or PATH, which is called after its last part."""
    name, separator, path = item.strip().partition("=")
    return (name, path) if separator else (Path(item.strip()).name, item.strip())


def find_checkpoints(base: Path, settings) -> list[Evaluated]:
    """Those that MODEL_PATH names, checksums compared; raises InputError or ArtefactError."""
    items = [named(item) for item in settings.model_path.split(",")]
    first = settings.ckpt_name or items[0][0]
    places: dict[str, str] = {}
    for label, path in items:
        name = f"{first}-{label}" if len(items) > 1 else first
        for step in steps_of(under(base, path), settings.all_steps):
            full = check_name("--ckpt-name", f"{name}-{step}" if step else name)
            if full in places:
                raise InputError(
                    f"two checkpoints would both be called {full}",
                    fix="name them: --model-path NAME=PATH,NAME=PATH",
                )
            places[full] = f"{path.rstrip('/')}/{step}".rstrip("/")
    return [
        examine(name, path, under(base, path), settings.add_bos) for name, path in places.items()
    ]


def steps_of(folder: Path, all_steps: bool) -> list[str]:
    """Names of the step folders: asked for, or without a model beside them. Else [""], itself."""
    steps = [path.name for path in folder.glob("step_*") if re.fullmatch(r"step_\d+", path.name)]
    if steps and (all_steps or not (folder / "config.json").exists()):
        return sorted(steps, key=lambda name: int(name.removeprefix("step_")))
    if all_steps:
        raise InputError("there are no step_* folders", where=folder, fix="give a run's folder")
    if steps:
        print(f"NOTE {folder} has {len(steps)} step_* folders: --all-steps true evaluates them")
    return [""]


def examine(name: str, path: str, folder: Path, add_bos: str) -> Evaluated:
    """A checkpoint, whole and with a tokenizer of its own; raises InputError or ArtefactError."""
    manifest = artefact.require(folder, "model", GET_MODEL, contents=True)
    model = {"path": path, **artefact.identity(folder, "model", GET_MODEL)}
    model["weights"] = weights_hash(folder)
    config = read_config(folder / "config.json")
    tokenizer = load_tokenizer(folder, f"copy the model's own tokenizer into {folder}")
    if add_bos == "auto":
        wanted = config["model_type"] in BOS_TYPES and adds_bos(tokenizer)
    else:
        wanted = bos_id(tokenizer, folder, add_bos == "true") is not None
    in_name = re.fullmatch(r"step_(\d+)", folder.name)
    step = manifest.counts.get("step") if manifest else None
    if step is None and in_name:
        step = int(in_name[1])
    return Evaluated(name, folder, model, tokenizer_fingerprint(tokenizer), wanted, step)


def adds_bos(tokenizer) -> bool:
    """Whether the tokenizer itself puts its BOS in front of a text.

    Llama's and Mistral's own do; others of these architectures (SmolLM2) have a BOS that their
    models were never trained with.
    """
    ids = tokenizer.backend_tokenizer.encode("a", add_special_tokens=True).ids
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id
