"""Real text that is on every machine with this project's packages: documents for the quickstart.

Python's own .py files and manual (pydoc's topics), and of the installed packages .py, .md and .rst
files, licences and descriptions (body of METADATA). For planted junk also the compiled libraries of
these packages; nothing else on the machine is read. Everything follows from the packages and the
seed. Whole packages (of the standard library modules) are held
out, and of equal texts only the first is taken, so no held-out document is a training document.
Near copies (versions of a licence, vendored files) are not filtered and may be on both sides.
"""

import base64
import functools
import hashlib
import os
import random
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

LIBRARY, CODE, DESCRIPTIONS = "standard library", "package code", "package descriptions"
LICENCES, MANUALS = "licences", "manuals"
NOISE, JUNK = "planted noise", "planted junk"
SOURCES = (LIBRARY, CODE, DESCRIPTIONS, LICENCES, MANUALS)
LICENCE_NAME = re.compile(r"(licen[cs]e|copying|notice|copyright)", re.IGNORECASE)
# Many installations leave Python's own tests out: without them machines are more alike.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "__pycache__"}
HELD_OUT = 0.15  # share of the packages
MIN_CHARACTERS, MAX_BYTES = 200, 16_384  # of a document


@dataclass(frozen=True)
class Document:
    """A text, or the file that has it, with its source, its package and its name there."""

    source: str
    package: str
    name: str
    text: str | Path

    def line(self) -> dict:
        """The document in the Pile's form."""
        meta = {"pile_set_name": self.source, "package": self.package, "file": self.name}
        return {"text": self.text, "meta": meta}


def draw(seed: int, train_bytes: int, heldout_bytes: int) -> tuple[list[Document], list[Document]]:
    """Training and held-out documents of about so many bytes, fewer if there are no more."""
    train, heldout, seen = [], [], set()
    for text in candidates():
        (heldout if order_key(seed, text.package) < HELD_OUT else train).append(text)
    return take(train, seed, train_bytes, seen), take(heldout, seed, heldout_bytes, seen)


def candidates() -> Iterator[Document]:
    """All texts of this machine, in no particular order, duplicates included."""
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions put it into a package of its own
        topics = {}
    for name, text in topics.items():
        yield Document(MANUALS, f"pydoc {name}", f"pydoc/{name}", text)
    paths = sysconfig.get_paths()
    for path, name in files_under(Path(paths["stdlib"])):
        if path.suffix == ".py":
            package = f"python {name.parts[0].removesuffix('.py')}"
            yield Document(LIBRARY, package, f"python/{name}", path)
    for folder in sorted({paths["purelib"], paths["platlib"]}):
        for path, name in files_under(Path(folder)):
            source = source_of(path)
            if source:
                yield Document(source, package_of(name), str(name), path)


def files_under(folder: Path) -> Iterator[tuple[Path, Path]]:
    """(path, path from folder) of the files below folder; links are not followed."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for path in (Path(place, name) for name in names):
            if not path.is_symlink():
                yield path, path.relative_to(folder)


def source_of(path: Path) -> str:
    """The source of a package's file, by its name; "" for other files."""
    suffix, dist_info = path.suffix.lower(), ".dist-info/" in str(path)
    if path.name == "METADATA" and dist_info:
        return DESCRIPTIONS
    if LICENCE_NAME.match(path.name) and suffix in ("", ".txt", ".md", ".rst"):
        return LICENCES
    if dist_info:
        return ""
    return {".py": CODE, ".md": MANUALS, ".rst": MANUALS}.get(suffix, "")


def package_of(name: Path) -> str:
    """The package of a file by its path from site-packages: numpy of numpy-2.1.dist-info too."""
    top = re.sub(r"-[^-]*\.dist-info$|\.py$", "", name.parts[0])
    return re.sub(r"[-_.]+", "-", top).lower()


def order_key(seed: int, *names: str) -> float:
    """A pseudorandom number in [0, 1) that does not depend on what else is installed."""
    digest = hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def in_turn(texts: Iterable[Document], seed: int) -> Iterator[Document]:
    """One text of every package, then a second of each, ...: no package dominates."""
    turns: Counter[str] = Counter()
    places = []
    for text in sorted(texts, key=lambda text: order_key(seed, text.name)):
        turns[text.package] += 1
        places.append((turns[text.package], order_key(seed, text.package), text))
    return (text for *_, text in sorted(places, key=lambda place: place[:2]))


def take(texts: Iterable[Document], seed: int, max_bytes: int, seen: set[str]) -> list[Document]:
    """Documents until there are enough, always from the source with the fewest bytes so far.

    seen: texts that are not taken again; those taken are added. A source that runs dry leaves its
    share to the others.
    """
    by_source = defaultdict(list)
    for text in texts:
        by_source[text.source].append(text)
    queues = {source: in_turn(by_source[source], seed) for source in sorted(by_source)}
    taken, sizes = [], Counter(dict.fromkeys(queues, 0))
    while queues and sizes.total() < max_bytes:
        source = min(queues, key=sizes.__getitem__)
        document = next(queues[source], None)
        if document is None:
            del queues[source]
            continue
        text = read(document)
        if len(text.strip()) < MIN_CHARACTERS or text in seen or "\0" in text:
            continue
        size = len(text.encode())
        if size <= MAX_BYTES:
            seen.add(text)
            sizes[source] += size
            taken.append(replace(document, text=text))
    if not queues:
        print(f"there are no more than {sizes.total():,} bytes")
    random.Random(seed).shuffle(taken)
    return taken


def read(document: Document) -> str:
    """Its text, of METADATA the body; "" if it is unreadable or not UTF-8 text."""
    text = document.text
    if isinstance(text, Path):
        try:
            text = text.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError):
            return ""
    return text.partition("\n\n")[2].strip("\n") if document.source == DESCRIPTIONS else text


def plant(documents: list[Document], share: float, seed: int, kind: str) -> list[Document]:
    """The documents, that share of them (by number) replaced: kind is a name in PLANTS.

    They are drawn at even steps (from a random start) in the order of source and length: so the
    share of the tokens is close to it too, in every source. Then they are spread: any stretch of
    the documents, which becomes a shard, has about this share.
    """
    start = random.Random(seed).random()
    planted = list(documents)
    order = sorted(enumerate(documents), key=lambda pair: (pair[1].source, len(pair[1].text)))
    for place, (number, document) in enumerate(order):
        if int((place + 1) * share + start) > int(place * share + start):
            planted[number] = PLANTS[kind](document, seed)
    return spread(planted, [document.source in (NOISE, JUNK) for document in planted])


def spread(documents: list[Document], planted: list[bool]) -> list[Document]:
    """The planted ones evenly among the others, by length; both stay in their order."""
    totals, place = Counter(), []
    for document, kind in zip(documents, planted, strict=True):
        place.append(totals[kind] + len(document.text) / 2)
        totals[kind] += len(document.text)
    shares = [at / totals[kind] for at, kind in zip(place, planted, strict=True)]
    order = sorted(range(len(documents)), key=shares.__getitem__)
    return [documents[number] for number in order]


def shuffled(document: Document, seed: int) -> Document:
    """The same words in a random order, between the same spaces and line ends."""
    words = re.findall(r"\S+", document.text)
    random.Random(f"{seed} {document.name}").shuffle(words)
    remaining = iter(words)
    text = re.sub(r"\S+", lambda _: next(remaining), document.text)
    return replace(document, source=NOISE, text=text)


def junk(document: Document, seed: int) -> Document:
    """A stretch of a compiled library as crawls have it: base64, a hex dump or a list of numbers.

    It has a third of the document's characters: one of them is about a token, of text three are.
    """
    drawn = random.Random(f"{seed} {document.name}")
    form = drawn.choice((base64_lines, hex_dump, byte_values))
    size = max(len(document.text) // 3, MIN_CHARACTERS)
    return replace(document, source=JUNK, text=form(stretch(drawn, size))[:size] + "\n")


def stretch(drawn: random.Random, size: int) -> bytes:
    """Bytes of one of libraries(), not padding: of the first 256 at least 64 are different."""
    while True:
        with open(drawn.choice(libraries()), "rb") as file:
            file.seek(drawn.randrange(file.seek(0, os.SEEK_END) - MAX_BYTES))
            data = file.read(size)
        if len(set(data[:256])) >= 64:
            return data


@functools.cache
def libraries() -> list[Path]:
    """The compiled libraries of the installed packages that are larger than any document."""
    paths = sysconfig.get_paths()
    folders = sorted({Path(paths["stdlib"]), Path(paths["purelib"]), Path(paths["platlib"])})
    found = {path for folder in folders for path in folder.rglob("*.so")}
    return sorted(path for path in found if path.stat().st_size > 4 * MAX_BYTES)


def base64_lines(data: bytes) -> str:
    return base64.encodebytes(data).decode()


def hex_dump(data: bytes) -> str:
    lines = (data[start : start + 16] for start in range(0, len(data), 16))
    return "".join(f"{16 * k:08x}  {line.hex(' ')}\n" for k, line in enumerate(lines))


def byte_values(data: bytes) -> str:
    lines = (data[start : start + 16] for start in range(0, len(data), 16))
    return "".join(", ".join(map(str, line)) + ",\n" for line in lines)


PLANTS = {"shuffle": shuffled, "junk": junk}
