"""Names and paths that users type: what becomes a file's name is safe, or refused before any work.

A name (--ckpt-name, TEACHER_NAME) is one part of a path: no slash, no way up, nothing that a
program would take for a flag or a hidden file. A path may be anything that a file system takes.
"""

import os
import re
from pathlib import Path

from data_utils.errors import InputError

# Surrogates stand for bytes that are no UTF-8: no JSON and no terminal can show them.
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
LONGEST_NAME = 200  # bytes; a file system takes 255, and endings and temporary names come on top
LONGEST_PART, LONGEST_PATH = 255, 3500  # the system's 4,096 less what programs put behind it


def check_name(what: str, name: str) -> str:
    """The name as it is; a ValueError says what is wrong with it and which flag it belongs to."""
    reasons = (
        ("is empty", not name),
        ("has a slash", "/" in name),
        ("has a control character or is no UTF-8", CONTROL.search(name)),
        ("begins with a dot or a dash", name.startswith((".", "-"))),
        ("begins or ends with a space", name != name.strip()),
        (f"has more than {LONGEST_NAME} bytes", len(name.encode(errors="replace")) > LONGEST_NAME),
    )
    for reason, holds in reasons:
        if holds:
            raise ValueError(f"{what} becomes a file's name, and {name[:60]!a} {reason}")
    return name


def absolute(path: str | Path, base: str | Path = ".") -> Path:
    """The path from the root, relative ones under base, with the names that the user sees.

    Links in it stay: programs find each other's folders by these names, whatever disk they are on.
    Only up to a last .. are they followed, as the file system does: what is above a link's target
    is not what is above the link. An InputError for what no file system takes.
    """
    place = Path(os.path.expanduser(base)).absolute() / os.path.expanduser(path)
    check_path(place)
    parts = place.parts
    if ".." not in parts:
        return place
    end = len(parts) - parts[::-1].index("..")
    return Path(os.path.realpath(Path(*parts[:end])), *parts[end:])


def check_path(path: Path) -> None:
    """Refuse a path that no file system takes or no terminal shows."""
    sizes = [len(os.fsencode(part)) for part in path.parts]
    shown = ascii(str(path)[:80])
    fix = "choose another name"
    if CONTROL.search(str(path)):
        raise InputError(f"the path {shown} has a control character or is no UTF-8", fix=fix)
    for what, size, limit in (
        ("a part of the path", max(sizes), LONGEST_PART),
        ("the path", sum(sizes) + len(sizes), LONGEST_PATH),
    ):
        if size > limit:
            expected, found = f"at most {limit} bytes", f"{size}, {shown}..."
            raise InputError(f"{what} is too long", expected=expected, found=found, fix=fix)
