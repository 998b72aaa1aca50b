"""Which files of a folder of text are read: all that hold documents.

What else stands there is refused by name, so that nothing is left out in silence.
"""

import re
from collections import Counter
from pathlib import Path

from data_utils.errors import InputError
from data_utils.text import SUFFIXES

# What lies beside text everywhere and is none: descriptions, licences, records, hidden files.
NO_TEXT = re.compile(
    r"\..*|.*\.(md|html)|(readme|licen[cs]e|notice|citation)(\..*)?|(sha256|md5)sums?(\.txt)?"
    r"|(manifest|settings|progress|dataset_infos?|dataset_dict|state)\.json",
    re.IGNORECASE,
)
SKIP_OTHERS = (
    f"turn it into {', '.join(SUFFIXES)}, move it away, or pass such files over with "
    "--skip-other-files true"
)


def natural(path: Path) -> list:
    """Sort key: numbers inside names count as numbers."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def text_files(folder: Path, skip_others: bool = False) -> list[Path]:
    """The files of documents in folder, or in folder/train if there is one, in natural order.

    Everything there is read, or an InputError that names it: other formats, links that lead
    nowhere, empty files, folders with documents, one name in two formats. skip_others: files of
    other formats and folders are passed over, and named on the terminal.
    """
    # A copy of the hub's data set has train/ beside the validation and test files.
    place = folder / "train" if (folder / "train").is_dir() else folder
    there = sorted(place.glob("*"), key=natural) if place.is_dir() else []
    there = [path for path in there if not NO_TEXT.fullmatch(path.name)]
    files = [path for path in there if path.name.endswith(SUFFIXES) and not path.is_dir()]
    others = [path for path in there if path not in files and holds_something(path)]
    if others and not skip_others:
        raise left_out("is not a file of documents", others, SKIP_OTHERS)
    if others:
        print(f"passed over in {place}: {', '.join(path.name for path in others)}", flush=True)
    check_text_files(files)
    if place != folder:
        print(f"reading {place} alone of {folder}", flush=True)
    if not files:
        raise InputError(
            f"there are no {', '.join(SUFFIXES)} files",
            where=place,
            fix="give the folder that holds the text (or whose folder train/ does)",
        )
    return files


def check_text_files(files: list[Path]) -> None:
    """Each file is there, has content, and stands there in one format only."""
    missing = [path for path in files if not path.exists()]
    if missing:
        raise left_out(
            "is a link that leads nowhere", missing, "bring the file, or remove the link"
        )
    # A plain text file of no bytes holds no documents; but so does one that never arrived.
    empty = [path for path in files if path.stat().st_size == 0]
    if empty:
        raise left_out("is empty", empty, "get it again, or remove it")
    stems = Counter(stem(path) for path in files)
    twice = [path for path in files if stems[stem(path)] > 1]
    if twice:
        raise left_out("has its name in two formats", twice, "keep one of them: both would be read")


def stem(path: Path) -> str:
    """The name of a file of documents without its format."""
    return next(path.name.removesuffix(s) for s in SUFFIXES if path.name.endswith(s))


def holds_something(path: Path) -> bool:
    """Whether leaving this path out may leave text out: a folder only if documents lie below it."""
    if not path.is_dir():
        return True
    return any(below.name.endswith(SUFFIXES) for below in path.rglob("*"))


def left_out(what: str, paths: list[Path], fix: str) -> InputError:
    """The error for paths of an input folder that would not be read."""
    more = f" (and {len(paths) - 1} more like it)" if len(paths) > 1 else ""
    return InputError(f"what lies in the text's folder {what}{more}", where=paths[0], fix=fix)
