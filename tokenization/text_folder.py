"""Which files of a folder of text are read: all that hold documents.

Anything else there is refused by name, so that nothing is left out in silence.
"""

import re
from collections import Counter
from pathlib import Path

from data_utils import artefact
from data_utils.artefact import TEXT_FORMATS
from data_utils.artefact_writer import PROGRESS
from data_utils.errors import InputError
from tokenization.text import holds_documents

# What is found beside text everywhere: descriptions, licences, records, hidden files.
NO_TEXT = re.compile(
    r"\..*|.*\.(md|html)|(readme|licen[cs]e|notice|citation)(\..*)?|(sha256|md5)sums?(\.txt)?"
    r"|(manifest|settings|progress|dataset_infos?|dataset_dict|state)\.json",
    re.IGNORECASE,
)
SKIP_OTHERS = (
    f"turn it into {', '.join(TEXT_FORMATS)}, move it away, or pass such files over with "
    "--skip-other-files true"
)


def natural(path: Path) -> list:
    """Sort key: numbers inside names count as numbers."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def text_files(folder: Path, skip_others: bool = False) -> list[Path]:
    """The files of documents in folder, or in folder/train if there is one, in natural order.

    An InputError names what would not be read or be read twice: other formats, broken links, files
    without documents, folders with files, one name in two formats. Descriptions and hidden files
    are passed over, with skip_others files of other formats and folders too; the terminal names
    them.
    """
    # A copy of the hub's data set has train/ beside the validation and test files.
    place = folder / "train" if (folder / "train").is_dir() else folder
    there = sorted(place.glob("*"), key=natural) if place.is_dir() else []
    no_text = [path for path in there if is_no_text(path)]
    there = [path for path in there if path not in no_text]
    files = [path for path in there if path.name.endswith(TEXT_FORMATS) and not path.is_dir()]
    others = [path for path in there if path not in files and holds_something(path)]
    if not skip_others:
        refuse("is not a file of documents", others, SKIP_OTHERS)
    check_text_files(files)
    if place != folder:
        beside = [path for path in sorted(folder.glob("*"), key=natural) if path != place]
        tell(f"reading only {place} of {folder}, not", beside, otherwise=f"reading {place}")
    tell(f"passed over in {place}:", no_text + others)
    if not files:
        raise InputError(
            f"there are no {', '.join(TEXT_FORMATS)} files",
            where=place,
            fix="give the folder that holds the text (or whose folder train/ does)",
        )
    return files


def check_text_files(files: list[Path]) -> None:
    """An InputError unless each file is there, has content, and is there in one format only."""
    refuse("is a broken link", [path for path in files if not path.exists()], "get or remove it")
    # A file without documents may be intended; but one that never arrived looks the same.
    empty = [path for path in files if path.stat().st_size == 0 or not holds_documents(path)]
    refuse("is empty", empty, "get it again, or remove it")
    stems = [
        next(p.name.removesuffix(s) for s in TEXT_FORMATS if p.name.endswith(s)) for p in files
    ]
    counts = Counter(stems)
    twice = [path for path, stem in zip(files, stems, strict=True) if counts[stem] > 1]
    refuse("has its name in two formats", twice, "keep one of them: both would be read")


def is_no_text(path: Path) -> bool:
    """Whether this path is always passed over: hidden, or by its name a description or record."""
    if path.name.endswith(TEXT_FORMATS) or path.is_dir():
        return path.name.startswith(".")
    return NO_TEXT.fullmatch(path.name) is not None


def holds_something(path: Path) -> bool:
    """Whether leaving this path out may leave text out: a folder only if it holds files."""
    if not path.is_dir():
        return True
    below = (p for p in path.rglob("*") if p.is_symlink() or not p.is_dir())
    return any(not is_no_text(p) and "/." not in f"/{p.relative_to(path)}" for p in below)


def tell(what: str, paths: list[Path], otherwise: str = "") -> None:
    """Print one line with the names of paths that are not read, but for this project's records."""
    own = {artefact.MANIFEST, artefact.SETTINGS, artefact.LOCK, PROGRESS}
    names = ", ".join(path.name for path in paths if path.name not in own)
    if names or otherwise:
        print(f"{what} {names}" if names else otherwise, flush=True)


def refuse(what: str, paths: list[Path], fix: str) -> None:
    """InputError for paths of an input folder that would not be read, if there are any."""
    if paths:
        more = f" (and {len(paths) - 1} more like it)" if len(paths) > 1 else ""
        raise InputError(f"a path in the folder of text {what}{more}", where=paths[0], fix=fix)
