"""Check finished artefacts byte by byte: checksums, counts, and the chain back to their inputs.

    python3 tools/verify.py PATH ...
    python3 tools/verify.py --adopt PATH ... [--tokenizer-path checkpoints/qwen/1.8B] \
        [--max-length 1025]

PATHs are artefact folders or folders that contain some. --adopt checks corpora and models that were
made by others and writes their manifest.json. Exit code 3 if anything is damaged.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError, ProgramError
from data_utils.flags import flag, parse
from data_utils.names import absolute
from data_utils.tokenizer import load_tokenizer, tokenizer_fingerprint
from miniplm.scores import PREDICTED, VALUES, Predictions, Scores

MAKE_AGAIN = "run the stage that makes it again (README: stages)"


@dataclass
class Settings:
    """Check finished artefacts."""

    paths: list[str] = flag([], "artefact folders, or folders that contain some")
    adopt: list[str] = flag([], "corpora and models made by others: check and write a manifest")
    tokenizer_path: str = flag("", "with --adopt: the tokenizer of the corpora")
    max_length: int = flag(0, "with --adopt: the most tokens per row; 0: as the folder's name says")

    def __post_init__(self) -> None:
        if self.max_length < 0:
            raise ValueError("--max-length must be at least 1")


def main() -> None:
    settings = parse(Settings, positional="paths...")
    if not settings.paths and not settings.adopt:
        raise InputError("no PATH given", fix="python3 tools/verify.py PATH ...")
    folders = [folder for path in settings.paths for folder in find(absolute(path))]
    adopted = [absolute(path) for path in settings.adopt]
    problems = [
        problem
        for folder in folders + adopted
        for problem in check(folder, settings if folder in adopted else None)
    ]
    for problem in problems:
        print(problem)
    if problems:
        raise ArtefactError(
            f"{len(problems)} of {len(folders + adopted)} artefacts are damaged (see above)",
            fix="restore or remove what is damaged and run the stage that makes it again",
        )
    print(f"{len(folders + adopted)} artefacts are whole")


def find(place: Path) -> list[Path]:
    """The artefact folders at or below a place."""
    if not place.is_dir():
        raise InputError("there is no such folder", where=place, fix="give an artefact's folder")
    found = sorted(p.parent for p in artefact.files_below(place) if p.name == artefact.MANIFEST)
    if not found:
        raise InputError(
            "there is no finished artefact",
            where=place,
            fix="finish it, or --adopt what was made by others",
        )
    return found


def check(folder: Path, adopt_with: Settings | None) -> list[str]:
    """Problems of one artefact, one line each; with settings it is adopted."""
    try:
        manifest = artefact.read_manifest(folder)
        if manifest is None and adopt_with is not None:
            manifest = adopt(folder, adopt_with)
        for entry in tqdm(manifest.files, desc=folder.name, unit="file", leave=False):
            artefact.check_file(folder, entry, manifest.kind, MAKE_AGAIN, contents=True)
        artefact.check_no_more(manifest)
        check_counts(folder, manifest)
        check_inputs(folder, manifest)
    except ProgramError as error:
        return [str(error)]
    print(f"{manifest.kind} {manifest.fingerprint[:12]} is whole: {folder}")
    return []


def check_counts(folder: Path, manifest: artefact.Manifest) -> None:
    """Rows and tokens are as many as the manifest says, and no row points outside."""
    if manifest.kind == "corpus":
        corpus = Corpus(folder)
        found = {"sequences": len(corpus), "tokens": count_tokens(corpus)}
    elif manifest.kind == "scores" and manifest.content["type"] in VALUES | PREDICTED:
        store = Scores if manifest.content["type"] in VALUES else Predictions
        _, counts = store(folder, MAKE_AGAIN).means()  # checks every block
        found = {
            "sequences": len(counts),
            "without_counted_tokens": int((counts == 0).sum()),
            "counted_tokens": int(counts.sum(dtype=np.int64)),
        }
    else:
        return
    for name, value in found.items():
        expected = manifest.counts.get(name, value)
        if expected != value:
            raise ArtefactError(
                f"wrong number of {name}",
                where=folder,
                expected=expected,
                found=value,
                fix=MAKE_AGAIN,
            )


def count_tokens(corpus: Corpus) -> int:
    """Tokens of all rows, which are back to back in their .bin: opening the corpus checks that."""
    return sum(len(shard.tokens) for shard in corpus.shards)


def check_inputs(folder: Path, manifest: artefact.Manifest) -> None:
    """Inputs that are still in their place must be the ones the artefact was made from."""
    for name, entry in manifest.inputs.items():
        place = artefact.input_place(folder, entry)
        found = artefact.read_manifest(place) if place.is_dir() else None
        if found is not None and found.fingerprint != entry["fingerprint"]:
            raise ArtefactError(
                f"its {name} in {place} is another one now",
                where=folder,
                expected=entry["fingerprint"][:12],
                found=found.fingerprint[:12],
                fix="put the former one back, or run the stage again into a new folder",
            )


def adopt(folder: Path, settings: Settings) -> artefact.Manifest:
    """Write the manifest of a corpus or model that others made."""
    if not folder.is_dir():
        raise InputError("there is no such folder", where=folder, fix="give a corpus or a model")
    if (folder / artefact.SETTINGS).exists():
        raise ArtefactError(
            "this is unfinished work of a stage", where=folder, fix="run that stage to its end"
        )
    content: dict = {"made_by_others": True}
    counts: dict = {}
    if (folder / "config.json").exists():
        kind = "model"
    else:
        kind, split = "corpus", "test" if (folder / "test_0.idx").exists() else "data"
        corpus = Corpus(folder, split, max_length=settings.max_length)
        content |= {"max_length": corpus.max_length, "split": split}
        counts = {"sequences": len(corpus), "tokens": count_tokens(corpus)}
        if settings.tokenizer_path:
            tokenizer = load_tokenizer(absolute(settings.tokenizer_path))
            content |= {"tokenizer": tokenizer_fingerprint(tokenizer)}
            content |= {"eos_id": tokenizer.eos_token_id}
    files = [
        str(path.relative_to(folder))
        for path in artefact.files_below(folder)
        if path.name not in (artefact.LOCK, artefact.MANIFEST)
    ]
    output = Output(folder, kind, "tools/verify.py --adopt", content, {})
    return output.finish(files, counts)


if __name__ == "__main__":
    run(main)
