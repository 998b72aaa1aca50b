"""From the texts of a machine to training and held-out documents: a balanced mix without copies.

Everything follows from the texts and the seed. Two documents are near copies if more than half of
one's passages (runs of 16 words, whatever their case, spacing and punctuation) stand in documents
taken before. Whole packages are held out, and of their documents only those that share not one
passage with the training documents are used: licences and vendored files are never on both sides.
"""

import hashlib
import random
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from tools.offline.local_text import Candidate, candidates

NOISE = "planted noise"  # source of the planted documents
PASSAGE = 16  # words
NEAR_COPY = 0.5  # share of passages seen before
HELDOUT_PACKAGES = 0.15  # share of each source's packages
MIN_CHARACTERS, MAX_BYTES = 200, 16_384  # of a document


@dataclass(frozen=True)
class Document:
    """A text with where it comes from."""

    text: str
    source: str
    package: str
    name: str

    def line(self) -> dict:
        """The document in the Pile's form."""
        meta = {"pile_set_name": self.source, "package": self.package, "file": self.name}
        return {"text": self.text, "meta": meta}


@dataclass
class Mix:
    """Documents taken, and how many texts were looked at and left out, by source and reason."""

    documents: list[Document] = field(default_factory=list)
    left_out: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))


class Passages:
    """A growing set of passages, 8 bytes each: sorted arrays of doubling size."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] = []

    def add(self, hashes: np.ndarray) -> None:
        """Add the sorted unique hashes of one document."""
        self.parts.append(hashes)
        while len(self.parts) > 1 and len(self.parts[-2]) < 2 * len(self.parts[-1]):
            last = self.parts.pop()
            self.parts[-1] = np.union1d(self.parts[-1], last)

    def share(self, hashes: np.ndarray) -> float:
        """Share of the hashes that are in the set."""
        found = np.zeros(len(hashes), bool)
        for part in self.parts:
            places = np.minimum(np.searchsorted(part, hashes), len(part) - 1)
            found |= part[places] == hashes
        return float(found.mean())


def passages(text: str) -> np.ndarray:
    """Sorted unique hashes (uint64) of the text's runs of 16 words; one of all words if fewer."""
    words = [zlib.crc32(word.encode()) for word in re.findall(r"\w+", text.lower())]
    codes = np.array(words or [0], np.uint64)
    length = min(PASSAGE, len(codes))
    hashes = np.zeros(len(codes) - length + 1, np.uint64)
    for start in range(length):  # a polynomial in wrapping 64-bit arithmetic, all runs at once
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[start : start + len(hashes)]
    return np.unique(hashes)


def order_key(seed: int, *names: str) -> bytes:
    """A pseudo-random order that another package on the machine does not turn over."""
    return hashlib.sha256("\0".join([str(seed), *names]).encode()).digest()


def heldout_packages(texts: Iterable[Candidate], seed: int) -> set[str]:
    """Packages to hold out: of each source about every seventh by size, at least one of two.

    The package with most texts in a source always trains: few packages carry most of the code.
    """
    counts: dict[str, Counter] = defaultdict(Counter)
    for text in texts:
        counts[text.source][text.package] += 1
    by_size = {
        source: sorted(count, key=lambda name, c=count: (-c[name], order_key(seed, name)))
        for source, count in counts.items()
    }
    train = {packages[0] for packages in by_size.values()}
    held: set[str] = set()
    for packages in sorted(by_size.values(), key=len):
        wanted = max(1, int(len(packages) * HELDOUT_PACKAGES)) if len(packages) > 1 else 0
        stride = len(packages) / max(wanted, 1)
        for turn in range(wanted - len(held.intersection(packages))):
            rest = packages[int((turn + 0.5) * stride) :]
            held.update([package for package in rest if package not in held | train][:1])
    return held


def in_turn(texts: Iterable[Candidate], seed: int) -> Iterator[Candidate]:
    """One text of every package, then a second of every package, ...: no package dominates."""
    packages = defaultdict(list)
    for text in texts:
        packages[text.package].append(text)
    places = []
    for package, members in packages.items():
        members.sort(key=lambda text: order_key(seed, text.name))
        places += [(turn, order_key(seed, package), text) for turn, text in enumerate(members)]
    places.sort(key=lambda place: place[:2])
    return iter([text for _, _, text in places])


def draw_documents(settings) -> tuple[Mix, Mix]:
    """Training and held-out documents of this machine (settings of tools/get_pile.py)."""
    texts, seed = list(candidates()), settings.seed
    held = heldout_packages(texts, seed)
    training = [text for text in texts if text.package not in held]
    train, seen = take(training, seed, settings.local_bytes, title="training text")
    heldout = [text for text in texts if text.package in held]
    return train, take(heldout, seed, settings.heldout_bytes, seen, title="held-out text")[0]


def take(
    texts: Iterable[Candidate],
    seed: int,
    max_bytes: int,
    apart_from: Passages | None = None,
    title: str = "",
) -> tuple[Mix, Passages]:
    """Documents until there are enough, always from the source with the fewest bytes so far.

    max_bytes: of all documents. A source that runs dry leaves its share to the others. With
    apart_from no passage of it is in any document taken.
    """
    by_source = defaultdict(list)
    for text in texts:
        by_source[text.source].append(text)
    queues = {source: in_turn(members, seed) for source, members in by_source.items()}
    sizes = dict.fromkeys(queues, 0)
    mix, seen = Mix(), Passages()
    with tqdm(total=max_bytes, desc=title, unit="B", unit_scale=True) as bar:
        while queues and sum(sizes.values()) < max_bytes:
            source = min(queues, key=lambda name: (sizes[name], name))
            candidate = next(queues[source], None)
            if candidate is None:
                del queues[source]
                continue
            text = candidate.read()
            reason = unfit(text)
            if reason is None:
                hashes = passages(text)
                reason = copied(hashes, seen, apart_from)
            if reason is not None:
                mix.left_out[source][reason] += 1
                continue
            seen.add(hashes)
            size = len(text.encode())
            sizes[source] += size
            mix.documents.append(Document(text, source, candidate.package, candidate.name))
            bar.update(size)
    if not queues:
        print(f"{title}: there are no more than {sum(sizes.values()):,} bytes", flush=True)
    random.Random(seed).shuffle(mix.documents)
    return mix, seen


def unfit(text: str | None) -> str | None:
    """Why a text is no document, or None."""
    if text is None:
        return "not UTF-8 text"
    if len(text.strip()) < MIN_CHARACTERS:
        return f"under {MIN_CHARACTERS} characters"
    if len(text.encode()) > MAX_BYTES:
        return f"over {MAX_BYTES} bytes"
    return None


def copied(hashes: np.ndarray, seen: Passages, apart_from: Passages | None) -> str | None:
    """Why a document with these passages is left out as a copy, or None."""
    if seen.share(hashes) > NEAR_COPY:
        return "near copy"
    if apart_from is not None and apart_from.share(hashes) > 0:
        return "shares a passage with a training document"
    return None


def plant_noise(documents: list[Document], share: float, seed: int) -> list[Document]:
    """The documents, that share of them (by number) turned into word-shuffled copies.

    They are drawn at even steps (from a random start) in the order of source and length: so the
    share of the tokens comes out near it too, in every source.
    """
    drawn, start = set(), random.Random(seed).random()
    keys = [(document.source, len(document.text)) for document in documents]
    order = sorted(range(len(documents)), key=keys.__getitem__)
    for place, number in enumerate(order):
        if int((place + 1) * share + start) > int(place * share + start):
            drawn.add(number)
    return [
        shuffled(document, seed) if number in drawn else document
        for number, document in enumerate(documents)
    ]


def shuffled(document: Document, seed: int) -> Document:
    """The same words in a random order, between the same spaces and line ends."""
    words = re.findall(r"\S+", document.text)
    random.Random(order_key(seed, document.name)).shuffle(words)
    remaining = iter(words)
    text = re.sub(r"\S+", lambda _: next(remaining), document.text)
    return Document(text, NOISE, document.package, document.name)
