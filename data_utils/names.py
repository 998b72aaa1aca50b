"""Names and paths that users type: what becomes a file's name is safe, or refused before any work.

A name (--ckpt-name, TEACHER_NAME) is one part of a path: no slash, no way up, nothing that a
program would take for a flag or a hidden file. A path may be anything that a file system takes.
"""

import os
import re
from pathlib import Path

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
LONGEST_NAME = 200  # bytes; a file system takes 255, and endings and temporary names come on top
LONGEST_PART = 255


def check_name(what: str, name: str) -> str:
    """The name as it is; a ValueError says what is wrong with it and which flag it belongs to."""
    reasons = (
        ("is empty", not name),
        ("has a slash", "/" in name),
        ("has a control character", CONTROL.search(name)),
        ("begins with a dot or a dash", name.startswith((".", "-"))),
        ("begins or ends with a space", name != name.strip()),
        (f"has more than {LONGEST_NAME} bytes", len(os.fsencode(name)) > LONGEST_NAME),
    )
    for reason, holds in reasons:
        if holds:
            raise ValueError(f"{what} becomes a file's name, and {name[:60]!r} {reason}")
    return name


def check_path(path: str | Path) -> None:
    """Refuse, by a ValueError, a path that no file system takes or no terminal shows."""
    if CONTROL.search(str(path)):
        raise ValueError(f"the path {str(path)[:60]!r} has a control character")
    for part in Path(path).parts:
        if len(os.fsencode(part)) > LONGEST_PART:
            raise ValueError(
                f"the path has a part of {len(os.fsencode(part))} bytes, {part[:40]!r}...: a "
                f"file's name has {LONGEST_PART} at most"
            )


def absolute(path: Path) -> Path:
    """The path from the root with the names that the user sees: links in it stay.

    Only up to a last .. are they followed, as the file system does: what is above a link's target
    is not what is above the link.
    """
    parts = path.absolute().parts
    if ".." not in parts:
        return Path(*parts)
    end = len(parts) - parts[::-1].index("..")
    return Path(Path(*parts[:end]).resolve(), *parts[end:])
