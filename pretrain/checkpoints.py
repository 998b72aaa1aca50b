"""Checkpoints: SAVE/step_000500, each a complete model with what is needed to go on.

config.json, model.safetensors (fp32), generation_config.json, tokenizer files, README.md
trainer_state.json   step and totals so far, number of ranks
deepspeed/           DeepSpeed's states, one file a rank
manifest.json        written last; the folder has its name only once it is complete
"""

import json
import os
import re
import shutil
from pathlib import Path

import torch

from data_utils import artefact, disk
from data_utils.errors import ArtefactError
from data_utils.tokenizer import FILES as TOKENIZER_FILES
from pretrain.engine import Engine
from pretrain.processes import Processes, barrier

STATE, DEEPSPEED = "trainer_state.json", "deepspeed"


def step_folder(save: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` updates."""
    return save / f"step_{step:06d}"


def save_checkpoint(
    engine: Engine,
    processes: Processes,
    output: artefact.Output,
    tokenizer_folder: Path | None,
    state: dict,
) -> Path:
    """Write the checkpoint of state["step"] completely or not at all; all ranks call it."""
    final = step_folder(output.folder, state["step"])
    temporary = final.with_name(f"{final.name}.tmp")
    if processes.first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    barrier(processes)
    with processes.together(f"the checkpoint of step {state['step']}"):
        engine.save_state(temporary / DEEPSPEED)
        weights = engine.full_weights()
    if processes.first:
        write_model(engine.objective.model, weights, temporary, tokenizer_folder)
        disk.write_json(temporary / STATE, state)
        sync_tree(temporary)
        files = [str(p.relative_to(temporary)) for p in temporary.rglob("*") if p.is_file()]
        step_output(output, temporary).finish(files, counts={"step": state["step"]})
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
        disk.fsync_folder(final.parent)
    barrier(processes)
    return final


def step_output(output: artefact.Output, folder: Path) -> artefact.Output:
    """The run's output description for one of its step folders (paths are relative to it)."""
    return artefact.Output(
        folder, "model", output.program, output.content, output.settings, output.inputs
    )


def write_model(
    model: torch.nn.Module, weights: dict, folder: Path, tokenizer_folder: Path | None
) -> None:
    """What AutoModelForCausalLM and AutoTokenizer open: config, fp32 weights, tokenizer, card."""
    from safetensors.torch import save_file

    tied = getattr(model, "_tied_weights_keys", None) or {}
    if model.config.tie_word_embeddings:
        weights = {name: t for name, t in weights.items() if name not in tied}
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    config.update(dtype="float32", architectures=[type(model).__name__])
    disk.write_json(folder / "config.json", config)
    generation = {"eos_token_id": config["eos_token_id"], "pad_token_id": config["eos_token_id"]}
    disk.write_json(folder / "generation_config.json", generation)
    for name in TOKENIZER_FILES if tokenizer_folder else ():
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, folder / name)
    (folder / "README.md").write_text(
        "---\nlibrary_name: transformers\ntags: [miniplm]\n---\n\nPre-trained by pretrain/train.py "
        "of MiniPLM (arXiv 2410.17215). manifest.json names the corpus and all settings.\n"
    )


def sync_tree(folder: Path) -> None:
    """fsync every file and folder below, so that the rename that follows means what it says."""
    for root, _, names in os.walk(folder):
        for name in names:
            with open(Path(root) / name, "rb") as file:
                os.fsync(file.fileno())
        disk.fsync_folder(Path(root))


def steps_present(save: Path) -> list[int]:
    """Steps of the complete checkpoints that can be resumed from, oldest first."""
    found = []
    for path in save.glob("step_*"):
        match = re.fullmatch(r"step_(\d+)", path.name)
        if match and (path / artefact.MANIFEST).exists() and (path / DEEPSPEED).is_dir():
            found.append(int(match[1]))
    return sorted(found)


def find_checkpoint(save: Path) -> Path | None:
    """The newest checkpoint whose checksums hold; damaged ones are named and passed over.

    An error if there are checkpoints and none is whole.
    """
    steps = steps_present(save)
    for step in reversed(steps):
        folder = step_folder(save, step)
        try:
            artefact.require(folder, "model", "", contents=True)
            return folder
        except ArtefactError as error:
            print(f"{folder} is damaged and passed over: {error}".removesuffix(" Fix: "))
    if steps:
        raise ArtefactError(
            "no checkpoint is whole",
            where=save,
            fix="restore one, or move the folder away to start from the beginning",
        )
    return None


def read_state(folder: Path) -> dict:
    """trainer_state.json of a checkpoint."""
    return json.loads((folder / STATE).read_text())


def prune(save: Path, keep_last: int, keep_every: int) -> None:
    """Keep the last `keep_last` resumable checkpoints; every keep_every-th stays as a model."""
    for path in save.glob("step_*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    for step in steps_present(save)[:-keep_last]:
        folder = step_folder(save, step)
        if keep_every and step % keep_every == 0:
            drop_state(folder)
        else:
            (folder / artefact.MANIFEST).unlink()
            shutil.rmtree(folder)


def drop_state(folder: Path) -> None:
    """Turn a checkpoint into a model only: without the optimiser's states."""
    manifest = artefact.read_manifest(folder)
    manifest["files"] = [f for f in manifest["files"] if not f["name"].startswith(DEEPSPEED)]
    manifest["fingerprint"] = artefact.fingerprint(manifest)
    disk.write_json(folder / artefact.MANIFEST, manifest)
    shutil.rmtree(folder / DEEPSPEED)


def publish_final(output: artefact.Output, last: Path, report: dict) -> None:
    """Put the last checkpoint's model into SAVE itself and finish the artefact."""
    names = [
        path.name
        for path in sorted(last.iterdir())
        if path.is_file() and path.name not in (artefact.MANIFEST, STATE)
    ]
    for name in names:
        disk.copy_file(last / name, output.folder / name)
    step = read_state(last)["step"]
    output.finish(names, counts={"step": step}, report=report)
