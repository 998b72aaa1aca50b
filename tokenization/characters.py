"""Which texts two implementations of one tokenizer can differ on, character by character.

They hold tables of different Unicode versions: a character that one of them does not know is
normalized, or taken for a letter, by the other alone. Each character is tried once, when it first
occurs, in strings that show its class and its part in normalization; what is assigned in both
normalizes alike in all versions (Unicode's stability policy).
"""

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

UNKNOWN, EQUAL, DIFFERENT = 0, 1, 2
# As a letter, a digit, a mark, a space, after an apostrophe ('s may be matched without regard to
# case); next to marks of the lowest and of a middle combining class, which are reordered around it.
PROBE = "a{0}b1{0}2 {0}. {0}\n'{0} x{0}\u0334y\u0301{0}z \u0315{0}"


class Characters:
    """Remembers on which characters two encoders differ.

    An encoder takes texts and returns the ids of all of them back to back, and their counts.
    """

    def __init__(self, *encoders: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]) -> None:
        self.encoders = encoders
        self.kinds = np.zeros(0x110000, np.uint8)
        self.kinds[:0x80] = EQUAL
        self._try_compositions()

    def may_differ(self, texts: Sequence[str]) -> np.ndarray:
        """[len(texts)] bool: whether the encoders may give different ids for a text."""
        codes = [code_points(text) for text in texts]
        new = [part[self.kinds[part] == UNKNOWN] for part in codes if len(part)]
        if any(map(len, new)):
            self._try(np.unique(np.concatenate(new)).tolist())
        return np.array([(self.kinds[part] == DIFFERENT).any() for part in codes], bool)

    def _try(self, codes: list[int]) -> None:
        letters = [chr(code) for code in codes]
        probes = [PROBE.format(c) + unicodedata.normalize("NFD", c) for c in letters]
        equal = self._equal(probes)
        # For characters that this Python does not know either, no probe shows their part.
        known = [unicodedata.category(c) != "Cn" for c in letters]
        self.kinds[codes] = np.where(equal & known, EQUAL, DIFFERENT)

    def _try_compositions(self) -> None:
        """Pairs that are composed to one character (Hangul's by arithmetic, so not tried)."""
        pairs = []
        for code in [*range(0xC0, 0xAC00), *range(0xD7A4, 0x30000)]:
            parts = unicodedata.decomposition(chr(code))
            if parts and parts[0] != "<":
                pairs.append(unicodedata.normalize("NFD", chr(code)))
        for pair, equal in zip(pairs, self._equal(pairs), strict=True):
            if not equal:
                self.kinds[[ord(c) for c in pair]] = DIFFERENT

    def _equal(self, texts: list[str]) -> np.ndarray:
        """[len(texts)] bool: the encoders give the same ids for it."""
        found = (encode(texts) for encode in self.encoders)
        parts = (np.split(ids, np.cumsum(lengths)[:-1]) for ids, lengths in found)
        return np.array([np.array_equal(*pair) for pair in zip(*parts, strict=True)], bool)


def code_points(text: str) -> np.ndarray:
    """The code points of a text, [length] uint32; none for a text of ASCII alone."""
    if text.isascii():
        return np.empty(0, "<u4")
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
