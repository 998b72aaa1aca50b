"""What a trained student cost: FLOPs of the student, and all those of a teacher that it needed.

They are found by following the manifests. A teacher's own training does not count: it was there
before. A reference's does, as it is trained for the scoring. One pass of a model over the same
shards counts once, because scoring can store the teacher in the same pass (KD_CACHE=true).
"""

from dataclasses import dataclass, field
from pathlib import Path

from data_utils import artefact

UNKNOWN = "unknown"
ELSEWHERE = {"repository", "made_by_others"}  # in the content of what was not made here
BOTH = ("teacher", "reference")
# The scores that a criterion of a selection looks at, if not both.
LOOKS_AT = {
    "random": (),
    "teacher": ("teacher",),
    "reference": ("reference",),
    "reference_band": ("reference",),
}


@dataclass(frozen=True)
class Made:
    """An artefact; the manifest is None where it has none or is another one now."""

    folder: Path
    fingerprint: str
    manifest: artefact.Manifest | None

    def input(self, name: str) -> "Made":
        """The artefact that it was made from."""
        entry = self.manifest.inputs[name]
        place = artefact.input_place(self.folder, entry)
        found = artefact.read_manifest(place) if place.is_dir() else None
        same = found is not None and found.fingerprint == entry["fingerprint"]
        return Made(place, entry["fingerprint"], found if same else None)

    def flops(self, name: str = "flops") -> float | None:
        """What its manifest counts, None if it does not."""
        return self.manifest.counts.get(name) if self.manifest else None


@dataclass
class Costs:
    """FLOPs by what they were spent on, each thing once; None: not known."""

    student: dict[str, float | None] = field(default_factory=dict)
    teacher: dict[str, float | None] = field(default_factory=dict)


def run_flops(folder: Path, manifest: artefact.Manifest) -> tuple[float | str, float | str]:
    """(student's, teacher's) of a trained model; "unknown" where a part is not recorded."""
    costs = training(Made(folder, manifest.fingerprint, manifest))
    return total(costs.student), total(costs.teacher)


def total(parts: dict[str, float | None]) -> float | str:
    """Their sum, unless one of them is not known."""
    return UNKNOWN if None in parts.values() else float(sum(parts.values()))


def training(model: Made) -> Costs:
    """Of a model: its steps, the model it began with, its corpus, what is stored of its teacher."""
    costs = Costs(
        {model.fingerprint: model.flops("student_flops")},
        {model.fingerprint: model.flops("teacher_flops")},
    )
    inputs = model.manifest.inputs if model.manifest else {}
    if "model" in inputs:
        before = training(model.input("model"))
        costs.student |= before.student
        costs.teacher |= before.teacher
    if "corpus" in inputs:
        costs.teacher |= data(model.input("corpus"))
    if "labels" in inputs:
        costs.teacher |= difference(model.input("labels"))
    if "teacher_cache" in inputs:
        costs.teacher |= scan(model.input("teacher_cache"))
    return costs


def data(corpus: Made) -> dict[str, float | None]:
    """Of a corpus: what generated it, the scores it was selected by, what it was made from."""
    if corpus.manifest is None or ELSEWHERE & corpus.manifest.content.keys():
        return {corpus.fingerprint: None}
    inputs, costs = corpus.manifest.inputs, {}
    if {"model", "teacher"} & inputs.keys():
        costs[corpus.fingerprint] = corpus.flops()
    if "corpus" in inputs:
        costs |= data(corpus.input("corpus"))
    if "score_file" in inputs:
        costs[corpus.fingerprint] = None  # made elsewhere
    if "scores" in inputs:
        scores, criterion = corpus.input("scores"), corpus.manifest.content.get("criterion")
        by_proxy = criterion == "proxy"
        roles = LOOKS_AT.get(criterion, BOTH)
        costs |= predictions(scores) if by_proxy else difference(scores, roles)
    return costs


def difference(scores: Made, roles: tuple[str, ...] = BOTH) -> dict[str, float | None]:
    """Of difference scores: these models' passes, and the training of the reference."""
    if not roles:
        return {}
    if scores.manifest is None:
        return {scores.fingerprint: None}
    costs = {}
    for role in roles:
        costs |= scan(scores.input(role))
    reference = scores.input("reference")
    if "reference" in roles and reference.manifest is not None:
        trained = training(reference.input("model"))
        costs |= trained.teacher | {f"steps of {k}": v for k, v in trained.student.items()}
    return costs


def predictions(scores: Made) -> dict[str, float | None]:
    """Of a proxy's predictions: its pass, its training and that of the reference, its labels."""
    costs = scan(scores)
    if scores.manifest is not None:
        trained = training(scores.input("model"))
        costs |= trained.teacher | {f"steps of {k}": v for k, v in trained.student.items()}
    return costs


def scan(store: Made) -> dict[str, float | None]:
    """Of what a model said of a corpus: one pass over its shards."""
    if store.manifest is None:
        return {store.fingerprint: None}
    model, corpus = (store.manifest.input_fingerprint(name) for name in ("model", "corpus"))
    return {f"{model} over {corpus} {store.manifest.content['shards']}": store.flops()}
