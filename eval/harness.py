"""Zero-shot accuracies of models with lm-eval: the paper's nine tasks, or any others.

    bash scripts/eval/harness.sh BASE_PATH --model-path results/miniplm/qwen/200M --ckpt-name 200M
    python3 eval/harness.py --prefetch FOLDER      # where there is a network: the data sets

Reads models and the data sets in HF_HOME, never the network; writes
BASE_PATH/results/eval/harness/NAME.json, .md and .lm_eval.json (eval/harness_results.py). What was
evaluated before, the same weights on the same tasks, is not evaluated again.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import contextlib
import importlib.metadata
import os
from dataclasses import dataclass

from cluster.processes import Processes, end_processes, start_processes
from cluster.worker import run
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import absolute, check_name
from data_utils.tokenizer import load_tokenizer
from eval import harness_results as results
from eval import harness_tasks
from eval.harness_checkpoints import Evaluated, find_checkpoints, named
from pretrain.models import Attention, Precision, resolve_precision
from reports.files import save

LIBRARIES = ("lm_eval", "transformers", "torch", "datasets", "tokenizers")


@dataclass
class Settings:
    """Evaluate models on zero-shot tasks."""

    base_path: str = flag(".", "folder that contains checkpoints/ and results/")
    model_path: str = flag("", "the model; several: NAME=PATH,NAME=PATH; a run's step_* folders")
    ckpt_name: str = flag("", "name of the results; default: the last part of --model-path")
    tasks: str = flag("", "names with commas; default: the paper's nine")
    limit: int = flag(0, "evaluate only the first documents of each task; 0: all")
    all_steps: bool = flag(False, "of a finished run evaluate the checkpoint of every step")
    add_bos: str = flag("auto", "begin contexts with BOS: true, false, auto (Llama, Mistral)")
    save: str = flag("results/eval/harness", "folder of the results")
    tokens_per_batch: int = flag(16_384, "tokens per forward pass, padding included")
    precision: Precision = flag("auto", "auto: fp16 on a GPU, fp32 on a CPU")
    attention: Attention = flag("sdpa", "attention of the model")
    storycloze_dir: str = flag("", "folder of Story Cloze's CSV files")
    prefetch: str = flag("", "only download the tasks' data sets, into this folder (as HF_HOME)")
    dist_timeout: int = flag(600, "seconds that processes wait for each other")

    def __post_init__(self) -> None:
        if not self.model_path and not self.prefetch:
            raise ValueError("--model-path is missing")
        if "," in self.model_path and not self.ckpt_name:
            raise ValueError("--ckpt-name is missing: the results of several models need a name")
        if self.add_bos not in ("auto", "true", "false"):
            raise ValueError("--add-bos must be auto, true or false")
        if self.limit < 0 or self.tokens_per_batch < 1:
            raise ValueError("--limit must be at least 0 and --tokens-per-batch at least 1")
        if self.ckpt_name:
            check_name("--ckpt-name", self.ckpt_name)


@dataclass
class Prepared:
    """The checkpoints and tasks, checked; manager and tasks (by name) are lm-eval's."""

    settings: Settings
    folder: Path
    checkpoints: list[Evaluated]
    precision: str
    manager: object
    tasks: dict[str, object]
    described: dict[str, dict]


def check(argv: list[str], world: int) -> Path:
    """Check the user's input before any process is started; returns the results' folder."""
    return prepare(parse(Settings, argv, positional="base_path")).folder


def main() -> None:
    settings = parse(Settings, positional="base_path")
    if settings.prefetch:
        base = base_folder(settings.base_path)
        harness_tasks.prefetch(base, absolute(settings.prefetch), settings.tasks)
        return
    processes = start_processes(settings.dist_timeout)
    if processes.first:
        evaluate_all(prepare(settings), processes)
    else:
        harness_tasks.stay_offline()
        from eval.harness_model import serve

        serve(processes)
    end_processes(processes)


def prepare(settings: Settings) -> Prepared:
    """Check models, tokenizers, tasks and data sets; raises InputError or ArtefactError."""
    if settings.prefetch:
        raise InputError(
            "--prefetch needs one process", fix="python3 eval/harness.py --prefetch FOLDER"
        )
    harness_tasks.stay_offline()
    base = base_folder(settings.base_path)
    if settings.storycloze_dir:
        os.environ["STORYCLOZE_DIR"] = str(under(base, settings.storycloze_dir))
    precision = resolve_precision(settings.precision)
    checkpoints = find_checkpoints(base, settings)
    manager, tasks = harness_tasks.load_tasks(base, harness_tasks.chosen(settings.tasks))
    described = {name: harness_tasks.described(t, settings.limit) for name, t in tasks.items()}
    folder = under(base, settings.save)
    return Prepared(settings, folder, checkpoints, precision, manager, tasks, described)


def evaluate_all(prepared: Prepared, processes: Processes) -> None:
    """Evaluate each checkpoint that was not evaluated before; print and write the tables."""
    from eval.harness_model import share

    folder, found = prepared.folder, []
    folder.mkdir(parents=True, exist_ok=True)
    for checkpoint in prepared.checkpoints:
        result = describe(prepared, checkpoint)
        known = results.evaluated(folder, result["key"])
        if known is None:
            outcome = evaluate(prepared, checkpoint, processes)
            tasks, average = results.summarise(outcome)
            result |= {"tasks": tasks, "average": average, "truncated": outcome["truncated"]}
            results.write(folder, result, outcome)
        elif known["name"] != checkpoint.name:
            result |= {key: known[key] for key in ("tasks", "average", "truncated", "versions")}
            results.copy(folder, known["name"], result)
        else:
            result = known
        if known:
            print(f"{checkpoint.name}: these weights were evaluated already ({known['name']})")
        found.append(result)
    share(None, processes)
    report(prepared, found)


def describe(prepared: Prepared, checkpoint: Evaluated) -> dict:
    """What is known of a checkpoint's result before it is evaluated."""
    settings = {
        "limit": prepared.settings.limit,
        "precision": prepared.precision,
        "attention": prepared.settings.attention,
        "add_bos": checkpoint.add_bos,
        "tokenizer": checkpoint.tokenizer,
        "lm_eval": importlib.metadata.version("lm_eval"),
    }
    return {
        "name": checkpoint.name,
        "model": checkpoint.model,
        "settings": settings,
        "data": prepared.described,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "key": results.key_of(checkpoint.model, settings, prepared.described),
    }


def evaluate(prepared: Prepared, checkpoint: Evaluated, processes: Processes) -> dict:
    """lm-eval's result of a checkpoint, samples included, and `truncated`, a number of requests."""
    from lm_eval.evaluator import simple_evaluate

    from eval.harness_model import Checkpoint, HarnessModel, load, share

    settings = prepared.settings
    order = Checkpoint(checkpoint.folder, prepared.precision, settings.attention)
    share(order, processes)
    model = HarnessModel(
        load(order, processes),
        load_tokenizer(checkpoint.folder),
        processes,
        add_bos=checkpoint.add_bos,
        tokens_per_batch=settings.tokens_per_batch,
    )
    with contextlib.redirect_stdout(sys.stderr):  # what lm-eval prints is no result
        outcome = simple_evaluate(
            model,
            model_args={"pretrained": str(checkpoint.model["path"])},
            tasks=list(prepared.tasks.values()),
            task_manager=prepared.manager,
            limit=settings.limit or None,
        )
    return {**outcome, "truncated": model.truncated}


def report(prepared: Prepared, found: list[dict]) -> None:
    """Print the table; of several checkpoints write it, too, and of a run's steps their curve."""
    folder, settings = prepared.folder, prepared.settings
    print(results.show(found))
    if len(found) == 1:
        print(f"\nResults: {folder / found[0]['name']}.json")
        return
    name = settings.ckpt_name or named(settings.model_path)[0]
    save(folder / f"{name}.md", results.markdown_of_all(found))
    print(f"\nResults: {folder / name}.md")
    steps = [checkpoint.step for checkpoint in prepared.checkpoints]
    if None not in steps and len(set(steps)) == len(steps):
        save(folder / f"{name}.png", results.curve(found, steps))
        print(f"Curve: {folder / name}.png")


if __name__ == "__main__":
    run(main)
