"""A stored teacher: for each counted position of a corpus, ids drawn by it, or its top k.

The blocks of an elastic job (data_utils/elastic.py). Beside `count` (int32, counted positions of
each row) a store of draws has `entries` (uint8, distinct ids of each counted position) and `packed`
(uint8 [all entries, 3]: id x 64 + number of draws as a little-endian number of 24 bits: ids up to
262,143, at most 63 draws). A store of the top k has `ids` (int32 [positions, k]) and
`probabilities` (float16 [positions, k]).
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.elastic import FILL, Arrays, BlockFiles
from data_utils.errors import ArtefactError, InputError

KINDS = {"draws": "teacher draws", "top-k": "teacher top-k"}
MOST_DRAWS, MOST_IDS = 63, 1 << 18
OPEN_BLOCKS = 64
FIX = "make it with scripts/vanilla_kd/cache_teacher.sh for this corpus and its shards"


def pack(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(entries uint8 [n], packed uint8 [all entries, 3]) of drawn ids [n, draws], ascending."""
    assert ids.size == 0 or (ids.shape[1] <= MOST_DRAWS and ids.max() < MOST_IDS)
    first = np.ones(ids.shape, bool)
    first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    starts = np.flatnonzero(first)
    draws = np.diff(np.append(starts, ids.size))
    numbers = (ids.ravel()[starts] * 64 + draws).astype("<u4")
    packed = numbers.view(np.uint8).reshape(-1, 4)[:, :3]
    return first.sum(axis=1, dtype=np.uint8), np.ascontiguousarray(packed)


def unpack(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ids int64, numbers of draws int64) of packed entries [n, 3], [n] each."""
    wide = np.zeros((len(packed), 4), np.uint8)
    wide[:, :3] = packed
    numbers = wide.view("<u4")[:, 0].astype(np.int64)
    return numbers >> 6, numbers & 63


class TeacherCache:
    """A finished store, read by rows of a corpus that it was made for or that was selected from it.

    Raises InputError for another corpus or tokenizer, ArtefactError for damage and missing rows.
    """

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        manifest = artefact.require(folder, "scores", FIX)
        if manifest is None or manifest.content.get("type") not in KINDS.values():
            raise InputError("this is not a stored teacher", where=folder, fix=FIX)
        self.folder, self.manifest, self.corpus = folder, manifest, corpus
        self.top_k = manifest.content["type"] == KINDS["top-k"]
        self.files = BlockFiles.of(manifest)
        cached = manifest.input_fingerprint("corpus")
        source = corpus.manifest.input_fingerprint("corpus") if corpus.manifest else None
        self.selected = corpus.identity["fingerprint"] != cached
        if corpus.side("generated", np.empty(0, np.int64)) is not None:
            source = None  # same row numbers, other tokens
        if self.selected and source != cached:
            raise InputError(
                "the stored teacher is of another corpus",
                where=folder,
                expected=f"corpus {corpus.identity['fingerprint'][:12]}, or what it was made from",
                found=cached[:12],
                fix=FIX,
            )
        mine, theirs = corpus.carried().get("tokenizer"), manifest.content.get("tokenizer")
        if mine != theirs:
            raise InputError("the stored teacher has another tokenizer", where=folder, fix=FIX)
        # A map holds a descriptor: few blocks stay open, however many a large store has.
        self._index = lru_cache(maxsize=OPEN_BLOCKS)(self._read_index)
        self._verified: set[int] = set()

    def summary(self) -> str:
        """What it keeps of the teacher, for people."""
        content, counts = self.manifest.content, self.manifest.counts
        each = counts["entries"] / max(counts["counted_tokens"], 1)
        kept = "the most probable" if self.top_k else f"{content['draws']} draws,"
        return f"stored teacher {self.folder}: {kept} {each:.1f} ids per token on average"

    def sources(self, rows: np.ndarray) -> np.ndarray:
        """The numbers of rows of the corpus in the corpus that the teacher has read."""
        if not self.selected:
            return self.corpus.first_row + rows
        found = self.corpus.side("source_row", rows)
        if found is None:
            raise InputError(
                "the corpus does not say which rows it was selected from (source_row_K.npy)",
                where=self.corpus.folder,
                fix="select it again",
            )
        return found

    def targets(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(counts int64 [n], ids int64 [n, C, E], probabilities float32 [n, C, E]) of rows [n].

        C is the longest of the counts, E the most entries of a position; the rest is 0.
        """
        self.require(rows)
        found = [self._row(int(row)) for row in self.sources(rows) - self.files.first_row]
        counts = np.array([len(entries) for entries, _, _ in found])
        shape = len(rows), counts.max(initial=0), max(int(e.max(initial=0)) for e, _, _ in found)
        ids, probabilities = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        for at, (entries, row_ids, row_probabilities) in enumerate(found):
            there = np.arange(shape[2]) < entries[:, None]
            ids[at, : counts[at]][there] = row_ids
            probabilities[at, : counts[at]][there] = row_probabilities
        return counts, ids, probabilities

    def require(self, rows: np.ndarray) -> None:
        """ArtefactError that names the first of the corpus's rows that is not stored."""
        sources, first = self.sources(rows), self.files.first_row
        missing = sources[(sources < first) | (sources >= first + self.files.rows)]
        if len(missing):
            raise ArtefactError(
                f"the stored teacher has no row {missing[0]} of its corpus",
                where=self.folder,
                expected=f"rows {first} to {first + self.files.rows - 1} at most",
                fix=FIX,
            )

    def _row(self, row: int) -> Arrays:
        """(entries of each position, ids and probabilities of all of them, back to back)."""
        block, local = divmod(row, self.files.block_size)
        arrays, positions, starts = self._index(block)
        at = slice(positions[local], positions[local + 1])
        if self.top_k:
            k = arrays["ids"].shape[1]
            ids, values = arrays["ids"][at], arrays["probabilities"][at]
            return np.full(len(ids), k), ids.ravel(), values.ravel()
        entries = arrays["entries"][at]
        ids, draws = unpack(arrays["packed"][starts[local] : starts[local + 1]])
        return entries, ids, draws / np.float32(self.manifest.content["draws"])

    def _read_index(self, block: int) -> tuple[Arrays, np.ndarray, np.ndarray | None]:
        """A block's arrays as memory maps, and where each of its rows begins in them.

        Its checksum is compared on its first use.
        """
        fix = FILL.format(f" and {artefact.MANIFEST}")
        arrays = self.files.map(block, verify=block not in self._verified, fix=fix)
        self._verified.add(block)
        positions = np.append(0, np.cumsum(arrays["count"], dtype=np.int64))
        if self.top_k:
            return arrays, positions, None
        entries = np.append(0, np.cumsum(arrays["entries"], dtype=np.int64))
        return arrays, positions, entries[positions]
