"""Select by every criterion under every condition, and train and evaluate the students.

    bash scripts/experiments/selection_bench.sh BASE_PATH     # makes what is read here
    python3 experiments/selection_bench/students.py BASE_PATH [--seeds 1 2 3] [--jobs 2]

Reads the mixtures with their scores. Runs the programs of the README, some at once, each with a
log in BASE_PATH/logs: a selection per condition and criterion, its conversion to the students'
tokenizer, a student per seed, its held-out losses. Run again it resumes.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import asdict, dataclass

from data_utils import artefact, atomic_files
from data_utils.flags import base_folder, flag, parse, under
from eval.runs import RESULTS
from experiments.selection_bench.bench import CRITERIA, Bench, Student
from experiments.selection_bench.forked_programs import Job, run_all

SELECT = "scripts/miniplm/difference_sampling/construct_pretrain_data.py"
DONE = "results/selection_bench/students.json"  # the settings, once all students are done
CONVERTED = "students"  # name of a selection in the students' tokens


@dataclass
class Settings(Bench):
    """Train the students of the bench."""

    tokenizer: str = flag("checkpoints/bpe", "the students' tokenizer")
    held_out: str = flag("processed_data/held_out/students", "held-out corpus in their tokens")
    model_config: str = flag(
        "configs/models/quickstart/small_vocabulary.json", "the students' size"
    )
    max_length: int = flag(257, "tokens per sequence in their tokens")
    steps: int = flag(256, "training steps")
    batch: int = flag(8, "sequences per step")
    lr: float = flag(3e-3, "peak learning rate")
    valid_every: int = flag(32, "steps between held-out losses")
    precision: str = flag("fp32", "precision of training and evaluation")
    jobs: int = flag(2, "students trained at once")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_length", "steps", "batch", "valid_every", "jobs"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is below 1")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    students = settings.students()
    selections = {student.selection: student for student in students}
    logs = base / "logs"
    selecting = [Job(name, select(one, settings)) for name, one in selections.items()]
    run_all(selecting, settings.jobs, logs, "selections")
    training = [Job(one.name, train(one, settings, base)) for one in students]
    run_all(training, settings.jobs, logs, "students")
    done = under(base, DONE)
    done.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_json(done, asdict(settings))


def select(student: Student, settings: Settings) -> list[list[str]]:
    """The selection that a student is trained on, and its conversion."""
    ratio, criterion = CRITERIA[student.criterion]
    mixture, selected = settings.mixture(student.condition), student.data / settings.corpus
    flags = {
        "data-dir": mixture,
        "scores": settings.scores(student.condition),
        "teacher-name": settings.teacher_name,
        "ref-name": settings.ref_name,
        "criterion": criterion,
        "seed": student.seed,
        "ratio": ratio,
        "save": selected,
    }
    converting = {
        "data-dir": selected,
        "target-tokenizer-path": settings.tokenizer,
        "max-length": settings.max_length,
        "workers": 1,
        "save": student.data / CONVERTED,
    }
    return [
        command(SELECT, settings, flags),
        command("tools/convert_tokenization.py", settings, converting),
    ]


def train(student: Student, settings: Settings, base: Path) -> list[list[str]]:
    """The training of a student and, unless it was done of this model, its evaluation."""
    training = {
        "model-config": settings.model_config,
        "data-dir": student.data / CONVERTED,
        "valid-data": settings.held_out,
        "valid-every": settings.valid_every,
        "save": student.folder,
        "global-batch": settings.batch,
        "micro-batch": settings.batch,
        "lr": settings.lr,
        "lr-min": settings.lr / 10,
        "warmup-steps": min(16, settings.steps),
        "total-steps": settings.steps,
        "save-every": settings.steps,
        "log-every": 1,
        "precision": settings.precision,
        "seed": student.seed,
    }
    evaluating = {
        "model-path": student.folder,
        "ckpt-name": student.name,
        "data-dir": settings.held_out,
        "precision": settings.precision,
    }
    if is_evaluated(student, base):
        return [command("pretrain/train.py", settings, training)]
    return [
        command("pretrain/train.py", settings, training),
        command("eval/lm.py", settings, evaluating),
    ]


def is_evaluated(student: Student, base: Path) -> bool:
    """Whether there are held-out losses of this very model."""
    manifest = artefact.read_manifest(under(base, student.folder))
    path = base / RESULTS / f"{student.name}.json"
    if manifest is None or not path.is_file():
        return False
    result = atomic_files.read_json(path, "remove this file and run the bench again")
    return result["model"]["fingerprint"] == manifest.fingerprint


def command(program: str, settings: Settings, flags: dict[str, object]) -> list[str]:
    """A program with BASE_PATH and flags."""
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return [program, settings.base_path, *words]


if __name__ == "__main__":
    run(main)
