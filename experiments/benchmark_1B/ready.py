"""Whether all that scripts/experiments/benchmark_1B.sh cannot fetch is there, before it begins.

    python3 experiments/benchmark_1B/ready.py BASE_PATH [--tasks NAMES]

Looks for held-out text and for the data sets of the zero-shot tasks (HF_HOME, STORYCLOZE_DIR) and
names what is missing. Writes nothing.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

import os
from dataclasses import dataclass

from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from eval import harness_tasks
from tokenization.text_folder import text_files


@dataclass
class Settings:
    """Name what is missing before the benchmark begins."""

    base_path: str = flag(".", "BASE_PATH of the benchmark")
    tasks: str = flag("", "names with commas; default: the paper's nine")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    missing = []
    for look in (lambda: held_out_text(base), lambda: task_data(base, settings.tasks)):
        try:
            look()
        except InputError as error:
            missing.append(error)
    for error in missing[:-1]:  # the last one ends the program
        print(error, file=sys.stderr)
    if missing:
        raise missing[-1]
    print("Held-out text and the tasks' data sets are here")


def held_out_text(base: Path) -> None:
    """InputError if there is none in data/dclm."""
    place = under(base, "data/dclm")
    if not place.is_dir():
        fix = "put .jsonl files of text that is in no corpus there (the paper's are of DCLM)"
        raise InputError("there is no held-out text", where=place, fix=fix)
    text_files(place)


def task_data(base: Path, tasks: str) -> None:
    """InputError that names the tasks whose data sets are not here."""
    harness_tasks.stay_offline()
    if stories := os.environ.get("STORYCLOZE_DIR"):
        os.environ["STORYCLOZE_DIR"] = str(under(base, stories))
    harness_tasks.load_tasks(base, harness_tasks.chosen(tasks))


if __name__ == "__main__":
    run(main)
