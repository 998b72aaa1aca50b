"""Pre-train a language model on a corpus with DeepSpeed.

    python3 pretrain/train.py BASE_PATH --model-config configs/models/qwen/200M.json --save ...

Launchers: scripts/pretrain/..., scripts/miniplm/pretraining/... Reads a corpus, writes the model
SAVE with checkpoints SAVE/step_000500, metrics.jsonl and curves.png. The same command resumes from
the newest intact checkpoint; SIGTERM, SIGUSR1 and Ctrl-C end a run with one (exit code 75).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import contextlib
import shutil
import signal
from dataclasses import asdict

import torch
from torch import nn

from cluster.processes import (
    Processes,
    all_sum,
    barrier,
    end_processes,
    start_processes,
)
from cluster.stop import Stop
from cluster.worker import run
from data_utils.artefact_writer import lock
from data_utils.errors import Stopped
from data_utils.flags import base_folder, under
from data_utils.tokenizer import load_tokenizer, tokenizer_fingerprint
from pretrain.batches import batches
from pretrain.checkpoints import (
    DEEPSPEED,
    OBJECTIVE,
    TrainState,
    find_checkpoint,
    prune,
    publish_final,
    read_state,
    require_space,
    save_checkpoint,
    step_folder,
)
from pretrain.engine import Engine, convert_state
from pretrain.metrics import Metrics, read_metrics
from pretrain.models import (
    compile_trunk,
    load_model,
    new_model,
    save_memory,
    try_saved,
)
from pretrain.objective import load, parse_settings
from pretrain.prepare import Prepared, Run, announce, begin, prepare
from pretrain.steps import held_out_loss, train_step


def check(argv: list[str], world: int) -> Path:
    """Check the user's input for so many processes before they start; the run's folder."""
    settings = parse_settings(argv)
    prepare(settings, Processes(0, world, torch.device("cpu")))
    return under(base_folder(settings.base_path), settings.save)


def main() -> None:
    settings = parse_settings()
    stop = Stop()
    processes = start_processes(settings.dist_timeout)
    prepared = prepare(settings, processes)
    with lock(prepared.output.folder) if processes.first else contextlib.nullcontext():
        stopped = None
        if not begin(prepared):
            stopped = fit(*resume(prepared), stop)
        elif processes.first:
            print(f"{prepared.output.folder} is trained already")
        end_processes(processes)
    if stopped:
        raise stopped


def make_student(run: Prepared) -> nn.Module:
    """The model that is trained, in fp32 on this process's device, equal on all ranks."""
    settings, base = run.settings, base_folder(run.settings.base_path)
    if settings.model_path:
        model = load_model(under(base, settings.model_path), "fp32", settings.attention)
    else:
        config_file = under(base, settings.model_config)
        model = new_model(config_file, settings.seed, settings.attention)
    try_saved(model)
    model.train()
    if settings.grad_checkpoint:
        save_memory(model)
    model.to(run.processes.device)
    if settings.compile:
        compile_trunk(model)
    return model


def build(prepared: Prepared, converted: bool) -> Run:
    """The run with its student, objective and optimiser; converted: see deepspeed_config."""
    student = make_student(prepared)
    if prepared.processes.first:
        announce(prepared, student)
    objective = load(prepared.settings.objective)(student, prepared)
    engine = Engine(student, objective.loss, prepared, converted)
    return Run(**vars(prepared), engine=engine, objective=objective)


def fit(run: Run, state: TrainState, stop: Stop) -> Stopped | None:
    """Steps from the state to the end, or until a signal: then the error to leave with."""
    settings, processes = run.settings, run.processes
    end = min(settings.stop_step or settings.total_steps, settings.total_steps)
    metrics = contextlib.nullcontext()
    if processes.first:
        require_space(run, end - state.step)
        metrics = Metrics(run.output.folder, state.step, end, asdict(settings))
    vocab_size = run.engine.student.config.vocab_size
    coming = batches(run, run.objective.columns, vocab_size, state.step, end)
    with metrics, contextlib.closing(coming):
        while state.step < end:
            row, stopped = train_step(run, state, stop, coming)
            step, finished = state.step, state.step == end
            if row and run.valid is not None and (finished or step % settings.valid_every == 0):
                row["valid_loss"] = held_out_loss(run)
            if processes.first:
                metrics.step(row, finished or step % settings.log_every == 0)
            if finished or stopped or step % settings.save_every == 0:
                save(run, state)
            if stopped and not finished:
                break
        if processes.first:
            metrics.close()
        if processes.first and state.step == end:
            finish(run, state)
    if state.step < end:
        name = signal.Signals(stopped).name
        return Stopped(f"by {name} after step {state.step} of {end}, checkpoint written")
    return None


def save(run: Run, state: TrainState) -> None:
    """Write a checkpoint, then drop those that are no longer to be kept."""
    if run.processes.first:
        require_space(run)
    save_checkpoint(run, state)
    if run.processes.first:
        prune(run.output.folder, state.step, run.settings.keep_last, run.settings.keep_every)


def newest_step(run: Prepared) -> int:
    """The step of the newest intact checkpoint, 0 without one; a kill's leftovers are removed."""
    settings, folder = run.settings, run.output.folder
    found = find_checkpoint(folder)
    step = read_state(found)["step"] if found else 0
    prune(folder, step, settings.keep_last, settings.keep_every)
    return step


def resume(prepared: Prepared) -> tuple[Run, TrainState]:
    """Build the run and load the newest intact checkpoint, which rank 0 looks for.

    States of another number of processes, or of the other ZeRO stage, are converted first.
    """
    processes, folder = prepared.processes, prepared.output.folder
    (step,) = all_sum([float(newest_step(prepared) if processes.first else 0)], processes)
    if not step:
        if processes.first and read_metrics(folder):
            print(f"no checkpoint in {folder}: starting again from step 0", flush=True)
        return build(prepared, converted=False), TrainState()
    found = step_folder(folder, int(step))
    values, states = read_state(found), found / DEEPSPEED
    layout = (processes.world, prepared.settings.zero_stage)
    converted = (values.pop("world"), values.pop("zero_stage")) != layout
    temporary = folder / ".converted.tmp"
    if processes.first:
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    if converted:
        if processes.first:
            print(f"converting {found} to {layout[0]} processes and ZeRO {layout[1]}", flush=True)
            convert_state(states, temporary)
        states = temporary
        barrier(processes)
    run = build(prepared, converted)
    with processes.together("the loading of the checkpoint"):
        run.engine.load_state(states)
    load_objective(run, found)
    barrier(processes)
    state = TrainState(**values)
    if processes.first:
        shutil.rmtree(temporary, ignore_errors=True)
        print(
            f"resuming after step {state.step}: {state.sequences:,} sequences, "
            f"{state.tokens:,} tokens used so far",
            flush=True,
        )
    return run, state


def load_objective(run: Run, checkpoint: Path) -> None:
    """Hand the objective the state that a checkpoint has of it, if it has one."""
    from safetensors.torch import load_file

    if (checkpoint / OBJECTIVE).exists():
        run.objective.load_state(load_file(checkpoint / OBJECTIVE))


def finish(run: Run, state: TrainState) -> None:
    """At the last step of the schedule SAVE itself becomes the model."""
    if state.step < run.settings.total_steps:
        print(f"stopped at STOP_STEP={state.step} with a checkpoint; unset it to continue")
        return
    publish_final(run, state)
    print(f"{run.output.folder}: trained on {state.tokens:,} tokens")
    note_auto_tokenizer(run)


def note_auto_tokenizer(run: Run) -> None:
    """Say so if AutoTokenizer reads another tokenizer from the model's folder than ours."""
    from transformers import AutoTokenizer

    folder = run.output.folder
    if not (folder / "tokenizer.json").exists():
        return
    ours = tokenizer_fingerprint(load_tokenizer(folder))
    try:
        theirs = tokenizer_fingerprint(AutoTokenizer.from_pretrained(folder, local_files_only=True))
    except Exception:  # many classes, one meaning; the model is finished nevertheless
        theirs = None
    if ours != theirs:
        print(
            f"NOTE AutoTokenizer does not give the corpus's tokenizer in {folder}: it looks at the "
            "architecture first. Open this model's tokenizer with PreTrainedTokenizerFast."
        )


if __name__ == "__main__":
    run(main)
