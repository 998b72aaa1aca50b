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
from pretrain.checkpoints import checkpoint_bytes
from pretrain.engine import Engine
from pretrain.flops import peak_flops
from pretrain.models import GET_MODEL, count_parameters, read_config, resolve_precision
from pretrain.settings import FREE, TrainSettings


@dataclass
class Run:
    """Everything a step needs."""

    settings: TrainSettings
    processes: Processes
    corpus: Corpus
    valid: Corpus | None
    eos_id: int
    output: Output
    tokenizer_folder: Path | None
    engine: Engine | None = None
    peak: float | None = None  # FLOP/s of a process's device, if known


def prepare(settings: TrainSettings, processes: Processes) -> Run:
    """Open and check all inputs and describe the output; nothing is written."""
    base = base_folder(settings.base_path)
    try:
        settings.accumulation(processes.world)
    except ValueError as error:
        raise InputError(str(error), fix="change GLOBAL_BATCH, MICRO_BATCH or NPROC") from error
    settings.precision = resolve_precision(settings.precision)
    corpus = Corpus(under(base, settings.data_dir))
    valid = Corpus(under(base, settings.valid_data)) if settings.valid_data else None
    tokenizer_folder = corpus.tokenizer_folder or under(base, settings.tokenizer_path)
    content = {k: v for k, v in asdict(settings).items() if k not in FREE}
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
    output = Output(
        under(base, settings.save),
        "model",
        "pretrain/train.py",
        content,
        asdict(settings),
        inputs,
        allowed=allowed_changes(settings, content),
    )
    eos_id = end_of_text(corpus, tokenizer_folder)
    cuda = processes.device.type == "cuda"
    device_name = torch.cuda.get_device_name(processes.device) if cuda else "CPU"
    peak = peak_flops(device_name, settings.precision)
    return Run(settings, processes, corpus, valid, eos_id, output, tokenizer_folder, peak=peak)


def allowed_changes(settings: TrainSettings, content: dict) -> frozenset[str]:
    """ALLOW_CHANGE as names of settings and inputs; another model cannot take over the states."""
    names = frozenset(filter(None, settings.allow_change.split(",")))
    known = {*content, "corpus"} - {"model_config"}
    if names - known:
        raise InputError(
            f"ALLOW_CHANGE does not know {', '.join(sorted(names - known))}",
            fix=f"name some of {', '.join(sorted(known))}",
        )
    return names


def begin(run: Run) -> bool:
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


def announce(run: Run, model: torch.nn.Module) -> None:
    """Say what is going to happen."""
    s, n = run.settings, count_parameters(model)
    rows, world = len(run.corpus), run.processes.world
    for change in run.output.changes:
        print("CHANGED {name} from {from} to {to} at {time}".format(**change))
    accumulation = s.accumulation(world)
    gigabytes = checkpoint_bytes(n, s.precision) / 1e9
    print(
        f"{type(model).__name__}, {n:,} parameters, {s.precision} on {world} x "
        f"{run.processes.device.type}, ZeRO {s.zero_stage}\n"
        f"{rows:,} sequences of {run.corpus.announced} in {run.corpus.folder}\n"
        f"{s.total_steps:,} steps of {s.global_batch} sequences ({s.micro_batch} x {accumulation} "
        f"accumulated x {world} processes): {s.total_steps * s.global_batch / rows:.2f} epochs\n"
        f"about {gigabytes:.2f} GB a checkpoint, in {run.output.folder}",
        flush=True,
    )
