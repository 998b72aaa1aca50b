"""The tasks of the harness: lm-eval's own, ours in configs/lm_harness_tasks, and their data.

Evaluation never asks the network. Data sets are read from the local cache (HF_HOME); `prefetch`
fills one where there is a network.
"""

import hashlib
import json
import logging
import os
from pathlib import Path

from data_utils import artefact
from data_utils.errors import EnvironmentFault, InputError
from data_utils.program import CODE_ROOT

STORY_CLOZE = "storycloze_2018"
# The paper's nine tasks, each with its folder in lm-eval: reading only these saves 20 s of looking
# through its 14,000 tasks.
NINE = {
    "hellaswag": "hellaswag",
    "lambada_openai": "lambada",
    "winogrande": "winogrande",
    "openbookqa": "openbookqa",
    "arc_easy": "arc",
    "arc_challenge": "arc",
    "piqa": "piqa",
    "social_iqa": "siqa",
    STORY_CLOZE: "",  # ours
}
OURS = "configs/lm_harness_tasks"
# What other variables would put outside HF_HOME.
PLACES = ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
LIKELIHOODS = ("multiple_choice", "loglikelihood")


def stay_offline() -> None:
    """Forbid the libraries the network: a data set that is not there is an error at once.

    Call it before datasets or huggingface_hub is imported.
    """
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")


def cache_folder() -> Path:
    """The folder that the data sets are read from."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(os.environ.get("HF_HOME") or default).expanduser()


def chosen(tasks: str) -> list[str]:
    """The tasks to evaluate: those named, or the nine, without Story Cloze if it is not there."""
    if tasks:
        return list(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    if os.environ.get("STORYCLOZE_DIR"):
        return list(NINE)
    print(f"NOTE {STORY_CLOZE} is left out: STORYCLOZE_DIR does not say where its file is")
    return [name for name in NINE if name != STORY_CLOZE]


def load_tasks(base: Path, names: list[str]) -> tuple[object, dict[str, object]]:
    """(lm-eval's TaskManager, its tasks by name, with their data); a tag becomes its tasks.

    InputError for unknown tasks, those that need generated text, and missing data sets.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = find_tasks(base, names)
    tasks, missing = {}, {}
    for name in names:
        try:
            tasks |= manager.load([name])["tasks"]
        except Exception as error:
            if not absent(error):
                raise InputError(
                    f"the task {name} cannot be loaded ({type(error).__name__}: {error})",
                    fix="correct its file or data, or leave it out (TASKS)",
                ) from error
            missing[name] = " ".join(str(error).split())
    if missing:
        raise no_data(missing)
    for name, task in tasks.items():
        if task.OUTPUT_TYPE not in LIKELIHOODS:
            raise InputError(
                f"the task {name} needs more than log-likelihoods of continuations",
                expected=" or ".join(LIKELIHOODS),
                found=task.OUTPUT_TYPE,
                fix="leave it out (TASKS)",
            )
    return manager, tasks


def find_tasks(base: Path, names: list[str]):
    """lm-eval's TaskManager for these tasks; InputError if one is unknown."""
    import lm_eval.tasks

    theirs = Path(lm_eval.tasks.__file__).parent
    ours = [folder for folder in (CODE_ROOT / OURS, base / OURS) if folder.is_dir()]
    folders = [theirs / folder for folder in dict.fromkeys(NINE.values()) if folder]
    manager = lm_eval.tasks.TaskManager(
        include_defaults=False, include_path=[*folders, *dict.fromkeys(ours)]
    )
    if unknown(manager, names):
        manager = lm_eval.tasks.TaskManager(include_path=list(dict.fromkeys(ours)))
    if wrong := unknown(manager, names):
        raise InputError(
            f"unknown tasks: {', '.join(wrong)}",
            expected=f"tasks of lm-eval, or files in {base / OURS}",
            found=f"e.g. {', '.join(list(NINE)[:3])}",
            fix="correct TASKS",
        )
    return manager


def unknown(manager, names: list[str]) -> list[str]:
    """The names that the manager does not know."""
    return [name for name in names if name not in manager.task_index]


def absent(error: Exception) -> bool:
    """Whether the data set library, or our Story Cloze, says with this that there is no data."""
    no_configuration = "Couldn't find cache" in str(error)
    return no_configuration or isinstance(error, ConnectionError) or "STORYCLOZE_DIR" in str(error)


def no_data(missing: dict[str, str]) -> InputError:
    """The error for tasks without data: what is missing and the one command that fetches it."""
    stories = [name for name in missing if "STORYCLOZE_DIR" in missing[name]]
    others = [name for name in missing if name not in stories]
    folder, fixes = cache_folder(), []
    if others:
        fixes.append(
            f"where there is a network: python3 eval/harness.py --prefetch {folder} --tasks "
            f"{','.join(others)}; then copy the folder here, or set HF_HOME to it"
        )
    if stories:
        fixes.append(
            "for Story Cloze ask its owners for the CSV file and set STORYCLOZE_DIR to its folder, "
            "or leave the task out"
        )
    reasons = [f"{name} ({missing[name]})" for name in stories]
    return InputError(
        f"data sets are not here: {', '.join([*others, *reasons])}",
        where=folder if others else None,
        fix="; ".join(fixes),
    )


def prefetch(base: Path, folder: Path, tasks: str) -> None:
    """Download the tasks' data sets into a folder that is used as HF_HOME from then on.

    EnvironmentFault if one cannot be had.
    """
    names = chosen(tasks or ",".join(name for name in NINE if name != STORY_CLOZE))
    os.environ.update(HF_HOME=str(folder), HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0")
    for name in PLACES:
        os.environ.pop(name, None)
    manager = find_tasks(base, names)
    for name in names:
        try:
            manager.load([name])
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise EnvironmentFault(
                f"the data of {name} cannot be fetched ({reason})",
                where=folder,
                fix="check the network, then run the same command again: what is there stays",
            ) from error
        print(f"{name}: its data is in {folder}", flush=True)
    print(f"On a machine without a network: copy {folder} there and set HF_HOME to it")


def described(task, limit: int) -> dict:
    """What a task is, by content: its configuration and the documents that are evaluated."""
    config = dict(task.dump_config())
    config["metadata"] = {"version": task.VERSION}  # the rest are paths
    text = hashlib.sha256()
    for number, document in enumerate(task.eval_docs):
        if limit and number == limit:
            break
        text.update(json.dumps(document, sort_keys=True, default=name_of).encode())
    settings = json.loads(json.dumps(config, default=name_of))
    return {"settings": artefact.canonical_hash(settings), "documents": text.hexdigest()}


def name_of(value: object) -> str:
    """What stands for a function in a task's configuration: its name, not its address."""
    return getattr(value, "__qualname__", type(value).__qualname__)
