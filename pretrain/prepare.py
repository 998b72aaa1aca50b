"""A run: its inputs, checked, and its output folder, made ready."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from cluster.processes import Processes, all_sum
from data_utils import artefact
from data_utils.artefact import canonical_hash
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, under
from pretrain.belonging import end_of_text, require_belonging, require_room, require_same_tokens
from pretrain.engine import Engine
from pretrain.flops import peak_flops
from pretrain.models import GET_MODEL, count_parameters, read_config, resolve_precision
from pretrain.objective import Context, Objective, load
from pretrain.settings import FREE, TrainSettings


@dataclass(frozen=True)
class Prepared(Context):
    """A run before it starts: its inputs, checked, and its output."""

    valid: Corpus | None
    output: Output
    tokenizer_folder: Path
    peak: float | None  # FLOP/s of a process's device, if known


@dataclass(frozen=True)
class Run(Prepared):
    """Everything a step needs."""

    engine: Engine
    objective: Objective


def prepare(settings: TrainSettings, processes: Processes) -> Prepared:
    """Open and check all inputs and describe the output; nothing is written.

    Raises the user's errors about settings and inputs.
    """
    base, plan = base_folder(settings.base_path), settings.plan(processes.world)
    objective = load(settings.objective)
    settings.precision = resolve_precision(settings.precision)
    corpus = Corpus(under(base, settings.data_dir))
    valid = Corpus(under(base, settings.valid_data)) if settings.valid_data else None
    tokenizer_folder = corpus.tokenizer_folder or under(base, settings.tokenizer_path)
    free = FREE | objective.FREE
    content = {k: v for k, v in asdict(settings).items() if k not in free}
    inputs = {"corpus": (corpus.folder, corpus.identity)}
    if settings.model_path:
        model_folder = under(base, settings.model_path)
        config_file = model_folder / "config.json"
        require_belonging(corpus, model_folder)
        inputs["model"] = (model_folder, artefact.identity(model_folder, "model", GET_MODEL))
    else:
        config_file = under(base, settings.model_config)
        require_room(corpus, config_file)
    content["model_config"] = canonical_hash(read_config(config_file))
    if valid is not None:
        require_same_tokens(corpus, valid, config_file)
    inputs.update(objective.inputs(settings, base, corpus))
    output = Output(
        under(base, settings.save),
        "model",
        "pretrain/train.py",
        content,
        asdict(settings),
        inputs,
        allowed=allowed_changes(settings, {*content, *inputs} - {"model_config", "model"}),
    )
    eos_id = end_of_text(corpus, tokenizer_folder)
    cuda = processes.device.type == "cuda"
    device_name = torch.cuda.get_device_name(processes.device) if cuda else "CPU"
    peak = peak_flops(device_name, settings.precision)
    return Prepared(
        settings, processes, plan, corpus, eos_id, valid, output, tokenizer_folder, peak
    )


def allowed_changes(settings: TrainSettings, known: set[str]) -> frozenset[str]:
    """ALLOW_CHANGE as names of settings and inputs; InputError for one that is not known.

    The model is not: another one could not take over the states.
    """
    names = frozenset(filter(None, settings.allow_change.split(",")))
    if names - known:
        raise InputError(
            f"ALLOW_CHANGE does not know {', '.join(sorted(names - known))}",
            fix=f"name some of {', '.join(sorted(known))}",
        )
    return names


def begin(run: Prepared) -> bool:
    """Rank 0 makes the run's folder ready, the others wait; True if it is trained already."""
    done = 0.0
    if run.processes.first:
        done = float(run.output.begin().done)
        if any(run.output.folder.glob("step_*[0-9]")) and not run.settings.resume:
            raise InputError(
                "RESUME=0 and the folder has checkpoints",
                where=run.output.folder,
                fix="leave RESUME on, or choose another SAVE",
            )
    return bool(all_sum([done], run.processes)[0])


def checkpoint_bytes(model: torch.nn.Module, precision: str) -> int:
    """The size of a checkpoint of this model, without small files and an objective's state.

    The model's weights in fp32, DeepSpeed's as they are trained, and the optimiser's three fp32
    numbers per parameter: master weight and both moments.
    """
    return count_parameters(model) * (4 + (4 if precision == "fp32" else 2) + 12)


def announce(run: Prepared, model: torch.nn.Module) -> None:
    """Say what is going to happen."""
    s, n, plan, rows = run.settings, count_parameters(model), run.plan, len(run.corpus)
    for change in run.output.changes:
        print("CHANGED {name} from {from} to {to} at {time}".format(**change))
    gigabytes = checkpoint_bytes(model, s.precision) / 1e9
    print(
        f"{type(model).__name__}, {n:,} parameters, {s.precision} on {plan.world} x "
        f"{run.processes.device.type}, ZeRO {s.zero_stage}\n"
        f"{rows:,} sequences of {run.corpus.announced} in {run.corpus.folder}\n"
        f"{s.total_steps:,} steps of {s.global_batch} sequences ({plan.micro_batch} x "
        f"{plan.accumulation} accumulated x {plan.world} processes): "
        f"{s.total_steps * s.global_batch / rows:.2f} epochs\n"
        f"about {gigabytes:.2f} GB per checkpoint, in {run.output.folder}",
        flush=True,
    )
