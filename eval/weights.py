"""The hash by which results name a model's weights, wherever they lie."""

from pathlib import Path

from data_utils import artefact
from data_utils.atomic_files import sha256
from data_utils.errors import InputError
from pretrain.models import GET_MODEL

WEIGHTS = (".safetensors", ".bin")


def weights_hash(folder: Path) -> str:
    """SHA-256 of model.safetensors; of several files, of their names and hashes.

    From the manifest, else the files are read. InputError where there are none.
    """
    manifest = artefact.read_manifest(folder)
    known = {entry["name"]: entry["sha256"] for entry in manifest.files} if manifest else {}
    files = sorted(path for path in folder.glob("*") if path.name.endswith(WEIGHTS))
    files = [path for path in files if path.name.startswith(("model", "pytorch_model"))]
    if not files:
        raise InputError("there are no weights", where=folder, fix=GET_MODEL)
    hashes = {path.name: known.get(path.name) or sha256(path) for path in files}
    return hashes[files[0].name] if len(files) == 1 else artefact.canonical_hash(hashes)
