"""Give a model or a selection away.

    python3 tools/publish.py MODEL [--to FOLDER] [--upload NAME/REPOSITORY]
    python3 tools/publish.py SELECTED_CORPUS [--to FOLDER] [--upload NAME/REPOSITORY]

Of a model: a clean folder of weights, tokenizer, configuration, a card that says where it comes
from and what was measured, and the hub's file of evaluation results. Of a selected corpus: row
numbers, 1 bit per row of the scored corpus, instead of its tokens. Whoever has the scored corpus
makes the selected one again with construct_pretrain_data.py BASE_PATH --from-rows FOLDER, byte for
byte; another corpus is refused. Nothing is uploaded without --upload and a login (hf auth login).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from data_utils import artefact, atomic_files
from data_utils.errors import InputError
from data_utils.flags import flag, parse
from data_utils.names import absolute
from miniplm import published_rows
from reports.files import save
from tools import hub, model_card

KEPT = (".safetensors", ".json", ".model", ".txt", ".jinja")  # of a model's files
OWN = {artefact.MANIFEST, artefact.SETTINGS, "trainer_state.json"}
TRAINED = "give the folder of a model that pretrain/train.py finished, or of a selected corpus"


@dataclass
class Settings:
    """Give a model or a selection away."""

    path: str = flag("", "the model or the selected corpus")
    to: str = flag("", "the folder to write; default: beside it, with -published in its name")
    upload: str = flag("", "also upload it to this repository of the hub, NAME/REPOSITORY")


def main() -> None:
    settings = parse(Settings, positional="path")
    if not settings.path:
        raise InputError("no PATH given", fix="python3 tools/publish.py PATH")
    folder = absolute(settings.path)
    target = absolute(settings.to) if settings.to else folder.with_name(f"{folder.name}-published")
    manifest = artefact.read_manifest(folder)
    if manifest is None or manifest.kind not in ("model", "corpus"):
        raise InputError("this is no finished model or corpus", where=folder, fix=TRAINED)
    if target.is_dir() and any(target.iterdir()):
        what = "the folder to write is not empty"
        raise InputError(what, where=target, fix="name another one with --to, or empty it")
    if manifest.kind == "corpus":
        publish_rows(folder, target)
    else:
        publish_model(folder, target)
    if settings.upload:
        upload(target, settings.upload, "dataset" if manifest.kind == "corpus" else "model")


def publish_rows(folder: Path, target: Path) -> None:
    """A selection's row numbers."""
    about = published_rows.write(folder, target)
    size = (target / published_rows.ROWS).stat().st_size
    print(
        f"{target}: {about['counts']['sequences']:,} of {about['corpus']['rows']:,} rows, "
        f"{size:,} bytes"
    )


def publish_model(folder: Path, target: Path) -> None:
    """A model's files, intact by their checksums, with card and evaluation results."""
    manifest = artefact.require(folder, "model", TRAINED, contents=True)
    if "step" not in manifest.counts:
        raise InputError("this model was not trained here", where=folder, fix=TRAINED)
    names = [entry["name"] for entry in manifest.files]
    names = [n for n in names if n.endswith(KEPT) and "/" not in n and n not in OWN]
    base = next((p for p in folder.parents if (p / "results/eval").is_dir()), None)
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        atomic_files.copy_file(folder / name, target / name)
    save(target / "README.md", model_card.card(manifest, base))
    if base and (found := model_card.eval_results(base, manifest)):
        (target / ".eval_results").mkdir()
        save(target / ".eval_results/zero_shot.yaml", yaml.safe_dump(found, sort_keys=False))
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target}: {len(names)} files and a card, {size / 1e6:,.1f} MB")


def upload(folder: Path, repository: str, kind: str) -> None:
    """Create the repository where it does not exist and upload the folder; or an error."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        what = f"nobody is logged in, {folder} is ready and was not uploaded"
        raise InputError(what, fix="hf auth login, then run the same command with another --to")
    with hub.reached(repository):
        HfApi().create_repo(repository, repo_type=kind, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, repo_type=kind, folder_path=os.fspath(folder))
    print(f"uploaded to {repository}")


if __name__ == "__main__":
    run(main)
