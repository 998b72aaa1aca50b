"""Have teacher and reference changed places?

1. If just one of the two models was trained on part of the scored corpus, it is the reference.
2. Otherwise the one with fewer parameters is the reference.
3. If neither tells (models unknown, or of one size), a mean r below -WORSE does.
A teacher that predicts the corpus worse although 1 or 2 confirm the order causes a warning only.
"""

from math import prod
from pathlib import Path

from data_utils import artefact
from data_utils.errors import InputError, ProgramError
from miniplm.scores import Scores

WORSE = 0.1  # nats per token; untrained models of one size differ by up to 0.03


def known_model(store: Scores) -> tuple[bool, int] | None:
    """(trained on part of the scored corpus, parameters or 0) of a store's model, if it is there.

    One without a manifest is taken to be the model by its place: hashing its weights would take
    longer than the rest of the stage.
    """
    entry = store.manifest.inputs.get("model")
    folder = artefact.input_place(store.folder, entry) if entry else None
    if folder is None or not folder.is_dir():
        return None
    try:
        manifest = artefact.read_manifest(folder)
        if manifest is None:
            return False, count_parameters(folder)
        if manifest.fingerprint != entry["fingerprint"]:
            return None
        seen = manifest.trained_on(store.manifest.inputs["corpus"]["fingerprint"])
        return seen is not None, count_parameters(folder)
    except ProgramError:
        return None


def count_parameters(folder: Path) -> int:
    """Numbers in a model's safetensors files, tied ones once; 0 where there are none."""
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        for path in folder.glob("model*.safetensors"):
            with safe_open(path, "numpy") as file:
                total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())
    except SafetensorError:
        return 0
    return total


def check_models(teacher: Scores, reference: Scores, allow: bool) -> bool:
    """Refuse exchanged models (InputError); returns whether the order is known to be right."""
    found = known_model(teacher), known_model(reference)
    if None in found:
        return allow
    (seen_t, size_t), (seen_ref, size_ref) = found
    names = teacher.folder.name, reference.folder.name
    if seen_t != seen_ref:
        right = seen_ref
        why = "{} was trained on part of the scored corpus, {} was not".format(*names)
    elif size_t and size_ref and size_t != size_ref:
        right = size_t > size_ref
        why = f"{names[0]} has {size_t:,} parameters, {names[1]} {size_ref:,}"
    else:
        return allow
    if not right and not allow:
        raise exchanged(teacher, reference, why)
    return True


def check_mean(teacher: Scores, reference: Scores, mean_r: float, order_known: bool) -> None:
    """Refuse, or if the order is known warn of, a teacher that predicts the corpus worse."""
    if mean_r < -WORSE and not order_known:
        why = f"mean r is {mean_r:.3f}: the reference predicts the corpus better"
        raise exchanged(teacher, reference, why)
    if mean_r < 0:
        print(
            f"WARNING mean r is {mean_r:.3f}: the reference predicts the corpus better than the "
            "teacher. A high r then says little about a sequence's value."
        )


def exchanged(teacher: Scores, reference: Scores, why: str) -> InputError:
    """The refusal."""
    return InputError(
        f"teacher and reference look exchanged ({why})",
        where=teacher.folder,
        fix="run compute_difference_scores.py BASE_PATH with "
        f"--teacher-name {reference.folder.name} --ref-name {teacher.folder.name}; if they are "
        "meant this way, add --allow-weaker-teacher true",
    )
