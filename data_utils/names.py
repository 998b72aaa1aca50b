"""Names and paths that users type: what becomes a file's name is safe, or refused before any work.

A name (--ckpt-name, TEACHER_NAME) is one part of a path: no slash, no way up, nothing that a
program would take for a flag or a hidden file. A path may be anything that a file system takes.
"""

import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from data_utils.errors import InputError

# Surrogates stand for bytes that are not UTF-8: no JSON and no terminal can show them.
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
LONGEST_NAME = 200  # bytes; a file system takes 255, and endings and temporary names add to it
LONGEST_PART, LONGEST_PATH = 255, 3500  # the system's 4,096 less what programs append
# The variables that folders are named after, in the flags that they stand for (scripts/common.sh
# has those of the launchers); and those of them that a flag has beside others, with their defaults.
FLAGS = {
    "data-dir": "processed_data/pretrain/{DATA_NAME}/{TOKENIZER_NAME}-{MAX_LENGTH}",
    "scores": "results/scores/{DATA_NAME}/{TOKENIZER_NAME}-{MAX_LENGTH}",
    "data-name": "{DATA_NAME}",
    "teacher-name": "{TEACHER_NAME}",
    "ref-name": "{REF_NAME}",
    "ratio": "{RATIO}",
    "shards": "{SCORE_SHARDS}",
    "criterion": "{CRITERION}",
    "tau": "{TAU}",
    "band": "{BAND}",
    "score-file": "{SCORE_FILE}",
}
PARTS = {"DATA_NAME": "pile", "TOKENIZER_NAME": "qwen", "MAX_LENGTH": "1025"}


def flags_of_variables(
    settings: type, argv: list[str], environment: Mapping[str, str] = os.environ
) -> list[str]:
    """Flags of a program (settings) that the user has exported variables for and argv lacks.

    For the programs that the README calls by Python: RATIO and the names mean the same for them as
    for those with a launcher. Says on stderr which flags these are.
    """
    leading = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    given = {word.split("=")[0][2:].replace("_", "-") for word in argv[leading:]}
    if leading > 1 or "tokens" in given:
        given.add("ratio")  # BASE_PATH RATIO, or a budget in its place
    known = {field.name.replace("_", "-") for field in dataclasses.fields(settings)}
    exported = {name: value for name, value in environment.items() if value}
    flags = []
    for flag, pattern in FLAGS.items():
        if flag in known - given and any(f"{{{name}}}" in pattern for name in exported):
            flags += [f"--{flag}", pattern.format(**PARTS | exported)]
    if flags:
        print(f"from the environment: {shlex.join(flags)}", file=sys.stderr)
    return flags


def check_name(what: str, name: str) -> str:
    """The name as it is; raises a ValueError that says what is wrong and which flag it is of."""
    reasons = (
        ("is empty", not name),
        ("has a slash", "/" in name),
        ("has a control character or is not UTF-8", CONTROL.search(name)),
        ("begins with a dot or a dash", name.startswith((".", "-"))),
        ("begins or ends with a space", name != name.strip()),
        (f"has more than {LONGEST_NAME} bytes", len(name.encode(errors="replace")) > LONGEST_NAME),
    )
    for reason, holds in reasons:
        if holds:
            raise ValueError(f"{what} becomes a file's name, and {name[:60]!a} {reason}")
    return name


def absolute(path: str | Path, base: str | Path = ".") -> Path:
    """The absolute path, relative ones under base, by the names that the user sees.

    Links in it stay: programs find each other's folders by these names, whatever disk they are on.
    They are followed only up to the last .., as the file system does: what is above a link's target
    is not what is above the link. Raises an InputError for what no file system takes.
    """
    place = Path(os.path.expanduser(base)).absolute() / os.path.expanduser(path)
    check_path(place)
    parts = place.parts
    if ".." not in parts:
        return place
    end = len(parts) - parts[::-1].index("..")
    return Path(os.path.realpath(Path(*parts[:end])), *parts[end:])


def check_path(path: Path) -> None:
    """Raise an InputError for a path that no file system takes or no terminal shows."""
    sizes = [len(os.fsencode(part)) for part in path.parts]
    shown = ascii(str(path)[:80])
    fix = "choose another name"
    if CONTROL.search(str(path)):
        raise InputError(f"the path {shown} has a control character or is not UTF-8", fix=fix)
    for what, size, limit in (
        ("a part of the path", max(sizes), LONGEST_PART),
        ("the path", sum(sizes) + len(sizes), LONGEST_PATH),
    ):
        if size > limit:
            expected, found = f"at most {limit} bytes", f"{size}, {shown}..."
            raise InputError(f"{what} is too long", expected=expected, found=found, fix=fix)
