"""Checkpoints: SAVE/step_000500, each a complete model with what is needed to go on.

config.json, model.safetensors (fp32), generation_config.json, tokenizer files, README.md
trainer_state.json   step and totals so far, number of ranks
deepspeed/           DeepSpeed's states, one file a rank
manifest.json        written last; the folder has its name only once it is complete
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from cluster.processes import Processes, barrier
from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output
from data_utils.errors import ArtefactError, EnvironmentFault, from_os_error
from data_utils.tokenizer import FILES as TOKENIZER_FILES
from pretrain.engine import Engine
from pretrain.models import descriptions

STATE, DEEPSPEED = "trainer_state.json", "deepspeed"


def step_folder(save: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` updates."""
    return save / f"step_{step:06d}"


def checkpoint_bytes(parameters: int, precision: str) -> int:
    """The size of a checkpoint of so many parameters, but for small files.

    Weights for people in fp32 and for DeepSpeed as they are trained, and three fp32 numbers of
    the optimiser: master weight and both moments.
    """
    return parameters * (4 + (4 if precision == "fp32" else 2) + 12)


def require_space(folder: Path, size: int) -> None:
    """An error if a checkpoint of this size, in bytes, has no place in folder."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise EnvironmentFault(
            "no space left for a checkpoint",
            where=folder,
            expected=f"{size / 1e6:,.1f} MB",
            found=f"{free / 1e6:,.1f} MB",
            fix="free some space, then run the same command again: nothing finished is lost",
        )


def save_checkpoint(
    engine: Engine,
    processes: Processes,
    output: Output,
    tokenizer_folder: Path | None,
    state: dict,
    counts: dict,
) -> Path:
    """Write the checkpoint of state["step"] completely or not at all; all ranks call it.

    counts: of its manifest, what the model was trained on.
    """
    final = step_folder(output.folder, state["step"])
    temporary = final.with_name(f"{final.name}.tmp")
    if processes.first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    barrier(processes)
    with removed_on_failure(temporary):
        with processes.together(f"the checkpoint of step {state['step']}"):
            engine.save_state(temporary / DEEPSPEED)
            weights = engine.full_weights()
        if processes.first:
            write_model(engine.objective.model, weights, temporary, tokenizer_folder)
            atomic_files.write_json(temporary / STATE, state)
            sync_tree(temporary)
            files = [str(p.relative_to(temporary)) for p in temporary.rglob("*") if p.is_file()]
            step_output(output, temporary).finish(files, counts)
    if processes.first:
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
        atomic_files.fsync_folder(final.parent)
    barrier(processes)
    return final


@contextlib.contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """Remove the half-written folder on any error; a failed write says so in one message.

    What is left of a full disk's last file would keep the message itself from being written.
    """
    try:
        yield
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        fault = write_failure(error, folder)
        if fault is None:
            raise
        raise fault from error


def write_failure(error: Exception, folder: Path) -> EnvironmentFault | None:
    """The EnvironmentFault for an error of a library that writes files in folder, else None.

    safetensors tells the system's error number in its text; torch.save writes with C++ streams,
    which know no reason: it only finds its file's position to be wrong.
    """
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number or isinstance(error, OSError):
        code = int(number[1]) if number else error.errno
        return from_os_error(OSError(code, os.strerror(code), str(folder)))
    if isinstance(error, RuntimeError) and re.search("inline_container|iostream", str(error)):
        return EnvironmentFault(
            "a file of the checkpoint could not be written whole (no space left?)",
            where=folder,
            fix="see to the space, the quota and the limits (df, ulimit -f), then run the same "
            "command again: nothing finished is lost",
        )
    return None


def step_output(output: Output, folder: Path) -> Output:
    """The run's output description for one of its step folders (paths are relative to it)."""
    return Output(folder, "model", output.program, output.content, output.settings, output.inputs)


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
    for name, values in descriptions(model).items():
        atomic_files.write_json(folder / name, values)
    for name in TOKENIZER_FILES if tokenizer_folder else ():
        if (tokenizer_folder / name).exists():
            shutil.copyfile(tokenizer_folder / name, folder / name)
    (folder / "README.md").write_text(
        "---\nlibrary_name: transformers\ntags: [miniplm]\n---\n\nPre-trained by pretrain/train.py "
        "of MiniPLM (arXiv 2410.17215). manifest.json names the corpus and all settings.\n",
        encoding="utf-8",
    )


def sync_tree(folder: Path) -> None:
    """fsync every file and folder below, so that the rename that follows means what it says."""
    for root, _, names in os.walk(folder):
        for name in names:
            with open(Path(root) / name, "rb") as file:
                atomic_files.fsync(file.fileno())
        atomic_files.fsync_folder(Path(root))


def steps_present(save: Path) -> list[int]:
    """Steps of the checkpoints that have DeepSpeed's states, whole or not, oldest first."""
    found = []
    for path in save.glob("step_*"):
        match = re.fullmatch(r"step_(\d+)", path.name)
        if match and (path / DEEPSPEED).is_dir():
            found.append(int(match[1]))
    return sorted(found)


def find_checkpoint(save: Path) -> Path | None:
    """The newest checkpoint whose checksums hold; damaged ones are named and passed over.

    An error if there are checkpoints and none is whole.
    """
    for step in reversed(steps_present(save)):
        folder = step_folder(save, step)
        try:
            require_states(folder)
            return folder
        except ArtefactError as error:
            print(f"{folder} is damaged and passed over: {error}".removesuffix(" Fix: "))
    if any(save.glob("step_*[0-9]")):
        raise ArtefactError(
            "no checkpoint is whole",
            where=save,
            fix="restore one, or move the folder away to start from the beginning",
        )
    return None


def require_states(folder: Path) -> None:
    """Check a checkpoint's files by its manifest, which must have those of DeepSpeed."""
    manifest = artefact.require(folder, "model", "", contents=True)
    names = [entry["name"] for entry in manifest.files] if manifest else []
    if not any(name.startswith(DEEPSPEED) for name in names):
        raise ArtefactError("no manifest of its states", where=folder, fix="")


def read_state(folder: Path) -> dict:
    """trainer_state.json of a checkpoint."""
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def prune(save: Path, last: int, keep_last: int, keep_every: int) -> None:
    """Keep the `keep_last` resumable checkpoints up to step `last`, the one just written.

    Every keep_every-th stays as a model. Newer ones were passed over as damaged: they are no
    reason to remove whole ones. What goes gets another name first, so that a kill leaves no part.
    """
    for path in save.glob("step_*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    for step in [step for step in steps_present(save) if step <= last][:-keep_last]:
        folder = step_folder(save, step)
        if keep_every and step % keep_every == 0:
            drop_state(folder)
        else:
            remove(folder, folder.with_name(f"{folder.name}.tmp"))


def drop_state(folder: Path) -> None:
    """Turn a checkpoint into a model only: without the optimiser's states."""
    manifest = artefact.read_manifest(folder)
    files = [file for file in manifest.files if not file["name"].startswith(DEEPSPEED)]
    replace(manifest, files=files).write()
    remove(folder / DEEPSPEED, folder.with_name(f"{folder.name}.{DEEPSPEED}.tmp"))


def remove(folder: Path, temporary: Path) -> None:
    """Remove a folder, which is at once no longer there under its name."""
    os.rename(folder, temporary)
    shutil.rmtree(temporary)


def publish_final(output: Output, last: Path, counts: dict) -> None:
    """Put the last checkpoint's model into SAVE itself and finish the artefact."""
    names = [
        path.name
        for path in sorted(last.iterdir())
        if path.is_file() and path.name not in (artefact.MANIFEST, STATE)
    ]
    for name in names:
        atomic_files.copy_file(last / name, output.folder / name)
    output.finish(names, counts)
