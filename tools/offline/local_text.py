"""Real text that lies on every machine with this project's packages installed.

Sources:
Python code           .py files of the standard library and of the installed packages
C and C++ code        headers and sources that packages carry (torch alone has thousands)
package descriptions  the texts that packages have on the package index (body of METADATA)
licences              licence, copying and notice files
manuals               Python's own manual (pydoc's topics), .md and .rst files of packages
A document belongs to a package: the distribution that installed it; a vendored copy belongs to the
package it is a copy of. Nothing else of the machine is read (not /usr/share/doc, no man pages), so
that equal requirements give nearly equal text everywhere, in a bare container too.
"""

import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

CODE, HEADERS, DESCRIPTIONS = "Python code", "C and C++ code", "package descriptions"
LICENCES, MANUALS = "licences", "manuals"
SOURCES = (CODE, HEADERS, DESCRIPTIONS, LICENCES, MANUALS)

LICENCE_NAME = re.compile(r"(licen[cs]e|copying|notice|copyright)", re.IGNORECASE)
C_SUFFIXES = {".h", ".hpp", ".hh", ".cuh", ".inl", ".c", ".cc", ".cpp", ".cu"}
# Many installations leave Python's own tests out: without them machines are more alike.
NOT_STDLIB = {"site-packages", "dist-packages", "test", "tests"}
TEXT_SUFFIXES = {"", ".txt", ".md", ".rst"}
VENDOR_FOLDERS = {
    "_vendor", "vendor", "vendored", "_vendored", "vendored_packages", "third_party", "thirdparty",
    "_third_party", "extern", "_extern", "external", "externals", "contrib_external",
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A text that may become a document; read() gives it, or None if it is not text."""

    source: str
    package: str
    name: str
    read: Callable[[], str | None]


def candidates() -> Iterator[Candidate]:
    """All texts of this machine, in no particular order, duplicates included."""
    owners = package_owners()
    paths = sysconfig.get_paths()
    stdlib = Path(paths["stdlib"])
    for path in files_under(stdlib, leave_out=NOT_STDLIB):
        name = path.relative_to(stdlib)
        yield from of_file(path, f"python/{name}", f"python {name.parts[0].removesuffix('.py')}")
    for path in files_under(Path(paths["include"])):
        yield from of_file(path, f"include/{path.name}", "python include")
    for folder in sorted({Path(paths["purelib"]), Path(paths["platlib"])}):
        for path in files_under(folder):
            name = path.relative_to(folder)
            yield from of_file(path, str(name), package_of(name, owners))
    yield from python_manual()


def files_under(folder: Path, leave_out: set[str] = frozenset()) -> Iterator[Path]:
    """Regular files below folder; links are not followed (they would bring a file twice)."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - leave_out - {"__pycache__"})
        for name in sorted(names):
            path = Path(place, name)
            if not path.is_symlink():
                yield path


def of_file(path: Path, name: str, package: str) -> Iterator[Candidate]:
    """The candidate that a file of a package is, if it is one; its name decides the source."""
    suffix = path.suffix.lower()
    in_dist_info = path.parent.name.endswith(".dist-info") or ".dist-info/" in name
    if path.name == "METADATA" and in_dist_info:
        yield Candidate(DESCRIPTIONS, package, name, lambda: description(path))
    elif LICENCE_NAME.match(path.name) and suffix in TEXT_SUFFIXES:
        yield Candidate(LICENCES, package, name, lambda: read_text(path))
    elif in_dist_info:
        return
    elif suffix == ".py":
        yield Candidate(CODE, package, name, lambda: read_text(path))
    elif suffix in C_SUFFIXES:
        yield Candidate(HEADERS, package, name, lambda: read_text(path))
    elif suffix in (".md", ".rst"):
        yield Candidate(MANUALS, package, name, lambda: read_text(path))


def package_owners() -> dict[str, str]:
    """Top-level module or distribution name -> the one package name that stands for both.

    Distributions that share a top-level name (google, opentelemetry) count as one package.
    """
    owners: dict[str, str] = {}
    for module, distributions in sorted(metadata.packages_distributions().items()):
        names = sorted(normal_name(name) for name in distributions)
        owner = next((owners[name] for name in names if name in owners), names[0])
        owners.setdefault(normal_name(module), owner)
        for name in names:
            owners.setdefault(name, owner)
    return owners


def normal_name(name: str) -> str:
    """A package name as the package index compares them."""
    return re.sub(r"[-_.]+", "-", name.strip("_")).lower()


def package_of(name: Path, owners: dict[str, str]) -> str:
    """The package of a file of site-packages, by its path from there."""
    top = name.parts[0]
    for folder, inside in zip(name.parts, name.parts[1:], strict=False):
        if folder.lower() in VENDOR_FOLDERS:
            top = inside
    if top.endswith(".dist-info"):
        top = top.removesuffix(".dist-info").rsplit("-", 1)[0]
    top = normal_name(top.removesuffix(".py"))
    return owners.get(top, top)


def python_manual() -> Iterator[Candidate]:
    """Topics of the language manual that pydoc shows, each a document of one package."""
    try:
        from pydoc_data import topics
    except ImportError:  # some distributions put it into a package of its own
        return
    for name, text in topics.topics.items():
        yield Candidate(MANUALS, "python pydoc_data", f"pydoc/{name}", lambda text=text: text)


def read_text(path: Path) -> str | None:
    """A file's text; None if it is unreadable or not UTF-8 text."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return None if "\0" in text else text


def description(path: Path) -> str | None:
    """The body of a METADATA file; its header lines are no text."""
    text = read_text(path)
    return None if text is None else text.partition("\n\n")[2].strip("\n")
