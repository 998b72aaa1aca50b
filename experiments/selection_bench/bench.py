"""The conditions, criteria and seeds of the bench of selection criteria, and names of its parts.

A condition is a mixture of the scored pool (mixture.py), a criterion one of miniplm/criteria.py
with its settings, a student a model trained on what that criterion keeps of that mixture.
"""

from dataclasses import dataclass
from pathlib import Path

from data_utils.flags import flag

CONTROL = "random"
CONDITIONS = {  # shares of planted noise and of planted junk
    "no_plant": (0.0, 0.0),
    "junk_30": (0.0, 0.3),
    "junk_50": (0.0, 0.5),
    "shuffled_30": (0.3, 0.0),
}
CRITERIA = {  # ratio, and the flags of construct_pretrain_data.py
    "difference_0.25": (0.25, "difference"),
    "difference_0.5": (0.5, "difference"),
    "difference_0.7": (0.7, "difference"),
    "by_source": (0.5, "by_source"),
    "temperature": (0.5, "temperature"),
    "teacher": (0.5, "teacher"),
    "reference": (0.5, "reference"),
    "reference_middle": (0.5, "reference_band"),
    "prior": (0.5, "prior"),
    CONTROL: (0.5, "random"),
}
DRAWN = {"temperature", CONTROL}  # another selection for each seed


@dataclass
class Bench:
    """What both programs of the bench are told."""

    base_path: str = flag(".", "folder that contains processed_data/ and results/")
    conditions: list[str] = flag([*CONDITIONS], f"of {', '.join(CONDITIONS)}")
    criteria: list[str] = flag([*CRITERIA], f"of {', '.join(CRITERIA)}; {CONTROL} is the control")
    seeds: list[int] = flag([1, 2, 3], "seeds of the students, and of what is drawn")
    corpus: str = flag("smollm2-129", "name of the scored corpora")
    teacher_name: str = flag("smollm2_135M", "the teacher's store")
    ref_name: str = flag("llama_5M", "the reference's store")

    def __post_init__(self) -> None:
        for name, known in (("conditions", CONDITIONS), ("criteria", CRITERIA)):
            unknown = [each for each in getattr(self, name) if each not in known]
            if unknown:
                raise ValueError(f"--{name} {unknown[0]}: expected some of {', '.join(known)}")
        if CONTROL not in self.criteria:
            raise ValueError(f"--criteria needs the control, {CONTROL}")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds or min(self.seeds) < 0:
            raise ValueError("--seeds must be different numbers, not below 0")

    def mixture(self, condition: str) -> str:
        """The corpus of a condition."""
        return f"processed_data/pretrain/{condition}/{self.corpus}"

    def scores(self, condition: str) -> str:
        """Folder of its score stores."""
        return f"results/scores/{condition}/{self.corpus}"

    def difference(self, condition: str) -> str:
        """Its difference store."""
        return f"{self.scores(condition)}/diff-{self.teacher_name}-{self.ref_name}"

    def cell(self, condition: str, criterion: str) -> list["Student"]:
        """The students of a criterion under a condition, one for each seed."""
        return [Student(condition, criterion, seed) for seed in self.seeds]

    def students(self) -> list["Student"]:
        """All students, those of one seed together."""
        return [
            Student(condition, criterion, seed)
            for seed in self.seeds
            for condition in self.conditions
            for criterion in self.criteria
        ]


@dataclass(frozen=True)
class Student:
    """One cell of the bench."""

    condition: str
    criterion: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its results."""
        return f"{self.condition}-{self.criterion}-seed{self.seed}"

    @property
    def selection(self) -> str:
        """Name of the selection that it is trained on."""
        drawn = f"-seed{self.seed}" if self.criterion in DRAWN else ""
        return f"{self.condition}-{self.criterion}{drawn}"

    @property
    def data(self) -> Path:
        """Folder of its corpora: the selected one and its conversion."""
        return Path("processed_data/pretrain/selected", self.selection)

    @property
    def folder(self) -> str:
        """Folder of the trained model."""
        return f"results/students/{self.name}"
