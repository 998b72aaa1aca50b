"""Flags of a program: a dataclass is the interface, which launchers and people fill in.

Relative paths are under BASE_PATH; those that begin with configs/ are also looked for in the
code's root, if BASE_PATH does not have them.
"""

import dataclasses
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

from data_utils.errors import InputError
from data_utils.names import absolute
from data_utils.program import CODE_ROOT

Settings = TypeVar("Settings")
# The file alone: importing all of transformers takes 1.5 s, longer than --help should.
HF_ARGPARSER = Path(importlib.util.find_spec("transformers").origin).with_name("hf_argparser.py")
SPEC = importlib.util.spec_from_file_location("hf_argparser", HF_ARGPARSER)
hf_argparser = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hf_argparser)


def flag(default: Any, help: str, **metadata: Any) -> Any:
    """A dataclass field with the text that --help shows."""
    metadata = {"help": help, **metadata}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Parser(hf_argparser.HfArgumentParser):
    def error(self, message: str) -> None:
        raise InputError(message, fix=f"see {self.prog} --help")


def parse(
    cls: type[Settings], argv: list[str] | None = None, positional: str = "", epilog: str = ""
) -> Settings:
    """Read flags into the dataclass cls; leading plain words fill the fields named in positional.

    A last name that ends in ... is a list and takes all words that are left. InputError for unknown
    or impossible flags and for a ValueError of cls.__post_init__. epilog: the end of --help.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    names = positional.split()
    first_flag = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    given, argv, words = argv[:first_flag], argv[first_flag:], []
    for name in names:
        taken, given = (given, []) if name.endswith("...") else (given[:1], given[1:])
        words += ["--" + name.removesuffix("...").replace("_", "-"), *taken] if taken else []
    argv = given + argv
    usage = " ".join(["%(prog)s", *(f"[{name.upper()}]" for name in names), "[--flag VALUE ...]"])
    parser = Parser(cls, allow_abbrev=False, usage=usage, description=cls.__doc__, epilog=epilog)
    try:
        settings, unknown = parser.parse_args_into_dataclasses(
            words + argv, return_remaining_strings=True
        )
    except ValueError as error:
        raise InputError(str(error), fix=f"see {parser.prog} --help") from error
    if unknown:
        raise InputError(f"unknown arguments {' '.join(unknown)}", fix=f"see {parser.prog} --help")
    return settings


def under(base_path: str | Path, path: str | Path) -> Path:
    """The absolute path of a given one: under base_path, configs/ also in the code's root."""
    place = absolute(path, os.path.realpath(base_path))
    if not place.exists() and Path(path).parts[:1] == ("configs",):
        return CODE_ROOT / path
    return place


def base_folder(base_path: str) -> Path:
    """BASE_PATH as an absolute path; InputError if it does not exist."""
    folder = Path(os.path.realpath(absolute(base_path)))
    if not folder.is_dir():
        what = f"BASE_PATH is not a directory: {folder}"
        raise InputError(what, fix="create it or give the right one")
    return folder
