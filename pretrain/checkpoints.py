"""Checkpoints: SAVE/step_000500, each a complete model with what is needed to resume.

config.json, model.safetensors (fp32), generation_config.json, tokenizer files, README.md
trainer_state.json   step and totals so far, number of ranks
deepspeed/           DeepSpeed's states, one file per rank, and objective.safetensors if the
                     objective has a state
manifest.json        written last; the folder gets its name only once it is complete
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from cluster.processes import barrier
from data_utils import artefact, atomic_files
from data_utils.errors import ArtefactError, EnvironmentFault, from_os_error
from data_utils.tokenizer import FILES as TOKENIZER_FILES
from pretrain.models import count_parameters, descriptions
from pretrain.prepare import Run, checkpoint_bytes

STATE, DEEPSPEED = "trainer_state.json", "deepspeed"
OBJECTIVE = f"{DEEPSPEED}/objective.safetensors"  # so it goes where and when the other states do


@dataclass
class TrainState:
    """How far a run has come: steps done, and totals over them."""

    step: int = 0
    tokens: int = 0
    sequences: int = 0
    skipped: int = 0  # updates, by fp16's loss scale
    left_out: list[int] = field(default_factory=list)  # steps, by SKIP_STEPS
    student_flops: float | None = 0.0  # None: some steps were an earlier version's, which did not
    teacher_flops: float | None = 0.0  # count them

    def add_flops(self, student: float, teacher: float) -> None:
        """Count those of a step."""
        if self.student_flops is not None:
            self.student_flops += student
            self.teacher_flops += teacher


def step_folder(save: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` updates."""
    return save / f"step_{step:06d}"


def require_space(run: Run, steps: int = 1) -> None:
    """EnvironmentFault if steps are left to be taken and there is no space for a checkpoint."""
    size = checkpoint_bytes(run.engine.student, run.settings.precision)
    free = shutil.disk_usage(run.output.folder).free
    if steps and free < size:
        raise EnvironmentFault(
            "no space left for a checkpoint",
            where=run.output.folder,
            expected=f"{size / 1e6:,.1f} MB",
            found=f"{free / 1e6:,.1f} MB",
            fix="free some space, then run the same command again: nothing finished is lost",
        )


def save_checkpoint(run: Run, state: TrainState) -> None:
    """Write the checkpoint of state.step completely or not at all; all ranks call it."""
    processes, final = run.processes, step_folder(run.output.folder, state.step)
    temporary = final.with_name(f"{final.name}.tmp")
    if processes.first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    barrier(processes)
    with removed_on_failure(temporary):
        with processes.together(f"the checkpoint of step {state.step}"):
            run.engine.save_state(temporary / DEEPSPEED)
            weights = run.engine.full_weights()
        if processes.first:
            write_model(run.engine.student, weights, temporary, run.tokenizer_folder)
            write_states(run, state, temporary)
            sync_tree(temporary)
            files = [str(p.relative_to(temporary)) for p in temporary.rglob("*") if p.is_file()]
            step = replace(run.output, folder=temporary, allowed=None, changes=[])
            step.finish(files, counts=counts(run, state))
    if processes.first:
        shutil.rmtree(final, ignore_errors=True)
        os.rename(temporary, final)
        atomic_files.fsync_folder(final.parent)
    barrier(processes)


def counts(run: Run, state: TrainState) -> dict:
    """What the manifest of a model says of its training."""
    parameters = count_parameters(run.engine.student)
    names = ["step", "sequences", "tokens", "left_out"]
    names += [] if state.student_flops is None else ["student_flops", "teacher_flops"]
    totals = {name: getattr(state, name) for name in names}
    return {**totals, "parameters": parameters, "trained_on": run.corpus.origins()}


@contextlib.contextmanager
def removed_on_failure(folder: Path) -> Iterator[None]:
    """Remove the half-written folder on any error; EnvironmentFault if a write has failed.

    On a full disk the message itself could not be written beside what is left of the last file.
    """
    try:
        yield
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        # What safetensors (Rust) and torch.save (C++ streams) say of a failed write.
        library = re.search(r"\(os error \d+\)|inline_container|iostream", str(error))
        if library is None and from_os_error(error) is None:
            raise
        reason = str(error).split("\n")[0]
        raise EnvironmentFault(
            f"the checkpoint could not be written ({reason})",
            where=folder,
            fix="check the space, the quota and the limits (df, ulimit -f), then run the same "
            "command again: nothing finished is lost",
        ) from error


def write_model(
    model: torch.nn.Module, weights: dict, folder: Path, tokenizer_folder: Path | None
) -> None:
    """Write config, fp32 weights, tokenizer and card, as AutoModelForCausalLM opens them."""
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


def write_states(run: Run, state: TrainState, folder: Path) -> None:
    """Write the trainer's and the objective's state."""
    from safetensors.torch import save_file

    layout = {"world": run.processes.world, "zero_stage": run.settings.zero_stage}
    atomic_files.write_json(folder / STATE, {**asdict(state), **layout})
    own = {name: tensor.contiguous().cpu() for name, tensor in run.objective.state().items()}
    if own:
        save_file(own, folder / OBJECTIVE)


def sync_tree(folder: Path) -> None:
    """fsync every file and folder below, so that the rename that follows publishes whole files."""
    for root, _, names in os.walk(folder):
        for name in names:
            with open(Path(root) / name, "rb") as file:
                atomic_files.fsync(file.fileno())
        atomic_files.fsync_folder(Path(root))


def steps_present(save: Path) -> list[int]:
    """Steps of the checkpoints that have DeepSpeed's states, intact or not, oldest first."""
    paths = [path for path in save.glob("step_*") if (path / DEEPSPEED).is_dir()]
    matches = [re.fullmatch(r"step_(\d+)", path.name) for path in paths]
    return sorted(int(match[1]) for match in matches if match)


def find_checkpoint(save: Path) -> Path | None:
    """The newest checkpoint whose checksums hold; damaged ones are named and passed over.

    None if there are no checkpoints, ArtefactError if none of them is intact.
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
            "no checkpoint is intact",
            where=save,
            fix="restore one, or move the folder away to start again from step 0",
        )
    return None


def require_states(folder: Path) -> None:
    """ArtefactError unless a checkpoint's files match its manifest, which must list the states."""
    manifest = artefact.require(folder, "model", "", contents=True)
    names = [entry["name"] for entry in manifest.files] if manifest else []
    if not any(name.startswith(DEEPSPEED) for name in names):
        raise ArtefactError("its manifest does not list its states", where=folder, fix="")


def read_state(folder: Path) -> dict:
    """trainer_state.json of a checkpoint."""
    values = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return {"student_flops": None, "teacher_flops": None, **values}


def prune(save: Path, last: int, keep_last: int, keep_every: int) -> None:
    """Keep the newest `keep_last` resumable checkpoints up to step `last`, the one just written.

    Every keep_every-th step stays as a model. Newer checkpoints were passed over as damaged and do
    not count. What is removed is renamed first, so that a kill leaves nothing half removed.
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
    """Turn a checkpoint into a mere model, without the states."""
    manifest = artefact.read_manifest(folder)
    files = [file for file in manifest.files if not file["name"].startswith(DEEPSPEED)]
    replace(manifest, files=files).write()
    remove(folder / DEEPSPEED, folder.with_name(f"{folder.name}.{DEEPSPEED}.tmp"))


def remove(folder: Path, temporary: Path) -> None:
    """Remove a folder; it disappears under its name at once."""
    os.rename(folder, temporary)
    shutil.rmtree(temporary)


def publish_final(run: Run, state: TrainState) -> None:
    """Put the last checkpoint's model into SAVE itself and finish the artefact."""
    last = step_folder(run.output.folder, state.step)
    names = [
        path.name
        for path in sorted(last.iterdir())
        if path.is_file() and path.name not in (artefact.MANIFEST, STATE)
    ]
    for name in names:
        atomic_files.copy_file(last / name, run.output.folder / name)
    run.output.finish(names, counts=counts(run, state))
