"""Pre-train a language model on a corpus with DeepSpeed.

    python3 pretrain/train.py BASE_PATH --model-config configs/models/qwen/200M.json --save ...

Launchers: scripts/pretrain/..., scripts/miniplm/pretraining/... Reads a corpus, writes the model
SAVE with checkpoints SAVE/step_000500, metrics.jsonl and curves.png. Run again it goes on from the
newest whole checkpoint; SIGTERM, SIGUSR1 and Ctrl-C end it with one (exit code 75).
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
from data_utils.flags import base_folder, parse, under
from data_utils.tokenizer import load_tokenizer, tokenizer_fingerprint
from pretrain import objectives
from pretrain.batches import batches
from pretrain.checkpoints import (
    DEEPSPEED,
    checkpoint_bytes,
    find_checkpoint,
    prune,
    publish_final,
    read_state,
    require_space,
    save_checkpoint,
    step_folder,
)
from pretrain.engine import Engine, convert_state, deepspeed_config
from pretrain.metrics import Metrics, read_metrics
from pretrain.models import (
    compile_trunk,
    count_parameters,
    load_model,
    new_model,
    save_memory,
    try_saved,
)
from pretrain.prepare import Run, announce, begin, prepare
from pretrain.settings import TrainSettings
from pretrain.steps import held_out_loss, train_step


def check(argv: list[str], world: int) -> Path:
    """Check the user's input for so many processes before they start; the run's folder."""
    settings = parse(TrainSettings, argv, positional="base_path")
    prepare(settings, Processes(0, world, torch.device("cpu")))
    return under(base_folder(settings.base_path), settings.save)


def main() -> None:
    settings = parse(TrainSettings, positional="base_path")
    stop = Stop()
    processes = start_processes(settings.dist_timeout)
    run = prepare(settings, processes)
    with lock(run.output.folder) if processes.first else contextlib.nullcontext():
        stopped = None
        if not begin(run):
            stopped = fit(run, stop, resume(run))
        elif processes.first:
            print(f"{run.output.folder} is trained already")
        end_processes(processes)
    if stopped:
        raise stopped


def build_engine(run: Run, converted: bool) -> Engine:
    """Model, objective and optimiser, equal on all ranks."""
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
    if run.processes.first:
        announce(run, model)
    return Engine(
        objectives.make(settings.objective, model, run.eos_id),
        run.processes,
        deepspeed_config(
            settings.zero_stage,
            settings.precision,
            settings.micro_batch,
            settings.accumulation(run.processes.world),
            settings.clip,
            converted,
        ),
        {
            "lr": settings.lr,
            "betas": (0.9, settings.beta2),
            "eps": 1e-6,
            "weight_decay": settings.weight_decay,
        },
    )


def fit(run: Run, stop: Stop, state: dict) -> Stopped | None:
    """Steps from the state to the end, or to a signal's: then what to leave with."""
    settings, processes = run.settings, run.processes
    end = min(settings.stop_step or settings.total_steps, settings.total_steps)
    metrics = contextlib.nullcontext()
    if processes.first:
        folder, saved = run.output.folder, state["step"]
        check_space(run, end - saved)
        metrics = Metrics(folder, saved, end, settings.wandb_mode, asdict(settings))
    with metrics, contextlib.closing(batches(run, state["step"], end)) as coming:
        while state["step"] < end:
            state, row, stopped = train_step(run, state, stop, coming)
            step, finished = state["step"], state["step"] == end
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
        if processes.first and state["step"] == end:
            finish(run, state)
    if state["step"] < end:
        name = signal.Signals(stopped).name
        return Stopped(f"by {name} after step {state['step']} of {end}, checkpoint written")
    return None


def save(run: Run, state: dict) -> None:
    """Write a checkpoint, then drop those that are no longer to be kept."""
    check_space(run)
    layout = {"world": run.processes.world, "zero_stage": run.settings.zero_stage}
    state = {**state, **layout}
    folder, counts = run.tokenizer_folder, counted(run, state)
    save_checkpoint(run.engine, run.processes, run.output, folder, state, counts)
    if run.processes.first:
        prune(run.output.folder, state["step"], run.settings.keep_last, run.settings.keep_every)


def check_space(run: Run, steps: int = 1) -> None:
    """Rank 0 looks whether there is space for a checkpoint, if any step is left to be taken."""
    if run.processes.first and steps:
        parameters = count_parameters(run.engine.objective.model)
        size = checkpoint_bytes(parameters, run.settings.precision)
        require_space(run.output.folder, size)


def newest_step(run: Run) -> int:
    """The step of the newest whole checkpoint, 0 without one; what a kill has left is removed."""
    settings, folder = run.settings, run.output.folder
    found = find_checkpoint(folder)
    step = read_state(found)["step"] if found else 0
    prune(folder, step, settings.keep_last, settings.keep_every)
    return step


def resume(run: Run) -> dict:
    """Build the engine and load the newest whole checkpoint, which rank 0 looks for; its state.

    States of another number of processes, or of the other ZeRO stage, are converted first.
    """
    settings, processes = run.settings, run.processes
    (step,) = all_sum([float(newest_step(run) if processes.first else 0)], processes)
    if not step:
        if processes.first and read_metrics(run.output.folder):
            print(f"no checkpoint is in {run.output.folder}: from the beginning again", flush=True)
        run.engine = build_engine(run, converted=False)
        return {"step": 0, "tokens": 0, "sequences": 0, "skipped": 0, "left_out": []}
    found = step_folder(run.output.folder, int(step))
    state, states = read_state(found), found / DEEPSPEED
    layout = (processes.world, settings.zero_stage)
    converted = (state.pop("world"), state.pop("zero_stage")) != layout
    temporary = run.output.folder / ".converted.tmp"
    if processes.first:
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    if converted:
        if processes.first:
            print(f"converting {found} to {layout[0]} processes and ZeRO {layout[1]}", flush=True)
            convert_state(states, temporary)
        states = temporary
        barrier(processes)
    run.engine = build_engine(run, converted)
    with processes.together("the loading of the checkpoint"):
        run.engine.load_state(states)
    barrier(processes)
    if processes.first:
        shutil.rmtree(temporary, ignore_errors=True)
        print(
            f"going on after step {state['step']}: {state['sequences']:,} sequences, "
            f"{state['tokens']:,} tokens used so far",
            flush=True,
        )
    return state


def finish(run: Run, state: dict) -> None:
    """At the last step of the schedule SAVE itself becomes the model."""
    if state["step"] < run.settings.total_steps:
        print(f"stopped at STOP_STEP={state['step']} with a checkpoint; without it the run goes on")
        return
    last = step_folder(run.output.folder, state["step"])
    publish_final(run.output, last, counted(run, state))
    print(f"{run.output.folder}: trained on {state['tokens']:,} tokens")
    note_auto_tokenizer(run)


def counted(run: Run, state: dict) -> dict:
    """What a model's manifest says of its training: totals, and the shards that it has seen."""
    totals = {name: state[name] for name in ("step", "sequences", "tokens", "left_out")}
    return {**totals, "trained_on": run.corpus.origins()}


def note_auto_tokenizer(run: Run) -> None:
    """Say so if AutoTokenizer reads another tokenizer from the model's folder than ours."""
    from transformers import AutoTokenizer

    folder = run.output.folder
    if not (folder / "tokenizer.json").exists():
        return
    ours = tokenizer_fingerprint(load_tokenizer(folder))
    try:
        theirs = tokenizer_fingerprint(AutoTokenizer.from_pretrained(folder, local_files_only=True))
    except Exception:  # many classes, one meaning; the model is finished all the same
        theirs = None
    if ours != theirs:
        print(
            f"NOTE AutoTokenizer does not give the corpus's tokenizer in {folder}: it looks at the "
            "architecture first. Open this model's tokenizer with PreTrainedTokenizerFast."
        )


if __name__ == "__main__":
    run(main)
