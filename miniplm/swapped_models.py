"""Have teacher and reference changed places? What is known of the two models, else their scores.

1. The reference is trained on a part of the scored corpus that is split off (manifests of models
   trained here say so). If just one of the two models was, it is the reference.
2. Otherwise the one with fewer parameters is the reference.
3. If neither tells (models unknown, or of one size), the scores do: a teacher whose mean
   log-probability is lower by more than WORSE is none.
A teacher that predicts worse although 1 or 2 say that it is the teacher is only warned of.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from data_utils import artefact
from data_utils.errors import InputError, ProgramError
from miniplm.scores import Scores

# Nats a token. Untrained models of one size differ by up to 0.03 (six seeds each, hidden 32 and
# 512), a real teacher and the reference of the method by several tenths and more.
WORSE = 0.1


@dataclass
class Model:
    """What is known of a scored model; None: nothing."""

    trained_here: bool | None = None  # on a part of the scored corpus
    parameters: int | None = None


def model_of(store: Scores) -> Model:
    """The model that a store names, if it is still in its place.

    One without a manifest is known by its place alone: a checksum of all its weights, only to
    tell the two apart, would take longer than the rest of the stage.
    """
    inputs = store.manifest["inputs"]
    entry = inputs.get("model", {"path": "nowhere", "fingerprint": ""})
    folder = artefact.input_place(store.folder, entry)
    try:
        manifest = artefact.read_manifest(folder) or {**entry, "report": {}, "inputs": {}}
    except ProgramError:
        return Model()
    if not folder.is_dir() or manifest["fingerprint"] != entry["fingerprint"]:
        return Model()
    trained_on = manifest["report"].get("trained_on", {}).get("made_from", {})
    sources = [entries.get("corpus", {}) for entries in (trained_on, manifest["inputs"])]
    corpus = inputs["corpus"]["fingerprint"]
    trained_here = any(source.get("fingerprint") == corpus for source in sources)
    return Model(trained_here, count_parameters(folder))


def count_parameters(folder: Path) -> int | None:
    """Numbers in a model's safetensors files, tied ones once."""
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        for path in folder.glob("model*.safetensors"):
            with safe_open(path, "numpy") as file:
                shapes = (file.get_slice(name).get_shape() for name in file.keys())
                total += sum(prod(shape) for shape in shapes)
    except SafetensorError:
        return None
    return total or None


def check_models(teacher: Scores, reference: Scores, allow: bool) -> bool:
    """Refuse exchanged models; returns whether what is known of them shows the right order."""
    t, ref = model_of(teacher), model_of(reference)
    names = teacher.folder.name, reference.folder.name
    if None not in (t.trained_here, ref.trained_here) and t.trained_here != ref.trained_here:
        right = ref.trained_here
        why = "{} was trained on a part of the scored corpus, {} was not".format(*names)
    elif t.parameters and ref.parameters and t.parameters != ref.parameters:
        right = t.parameters > ref.parameters
        why = f"{names[0]} has {t.parameters:,} parameters, {names[1]} {ref.parameters:,}"
    else:
        return allow
    if not right and not allow:
        raise exchanged(teacher, reference, why)
    return True


def check_mean(teacher: Scores, reference: Scores, mean_r: float, order_known: bool) -> None:
    """Refuse, or if the order is known warn of, a teacher that predicts the corpus worse."""
    if mean_r < -WORSE and not order_known:
        raise exchanged(
            teacher,
            reference,
            f"{reference.folder.name} predicts the corpus better than {teacher.folder.name} by "
            f"{-mean_r:.3f} nats a token",
        )
    if mean_r < 0:
        print(
            f"WARNING mean r is {mean_r:.3f}: the reference predicts the corpus better than the "
            "teacher. A high r then says little of a sequence's value."
        )


def exchanged(teacher: Scores, reference: Scores, why: str) -> InputError:
    """The refusal."""
    return InputError(
        f"teacher and reference look exchanged ({why})",
        where=teacher.folder,
        fix="run compute_difference_scores.py BASE_PATH with "
        f"--teacher-name {reference.folder.name} --ref-name {teacher.folder.name}; if these places "
        "are meant, add --allow-weaker-teacher true",
    )
