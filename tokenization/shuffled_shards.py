"""Collects sequences and writes every full shard, shuffled inside as the original does."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_utils.corpus import write_side
from data_utils.shards import write_shard
from tokenization.chunker import Sequences

SHUFFLE_SEED = 233  # the original's; one generator runs through all shards
GROUP = 4096  # sequences gathered for one write


class ShuffledShards:
    """Shards split_K and domain_K.npy of a folder, `size` sequences each but the last.

    It holds one shard's tokens in memory, plus those of the batch that filled it.
    """

    STATE = ("tokens", "sequences", "counts")  # names of the arrays of state()

    def __init__(
        self, folder: Path, split: str, size: int, dtype: np.dtype, bos_id: int | None = None
    ) -> None:
        self.folder, self.split, self.size, self.dtype = folder, split, size, dtype
        self.bos = np.array([] if bos_id is None else [bos_id], dtype)
        self.random = np.random.RandomState(SHUFFLE_SEED)
        self.streams: list[np.ndarray] = []
        self.table = np.empty((0, 4), np.int64)  # per sequence: stream, start, end, domain
        self.parts: list[np.ndarray] = []  # of the table, not joined yet
        self.waiting = 0  # sequences not written yet
        self.files: list[str] = []
        self.shards = self.rows = self.tokens = 0

    def add(self, batch: list[tuple[int, Sequences]]) -> None:
        """Take (domain, sequences) of a batch's sources; their order is that of its documents."""
        parts, documents = [], []
        for domain, found in batch:
            columns = np.empty((len(found.starts), 4), np.int64)
            columns[:, 0], columns[:, 3] = len(self.streams), domain
            columns[:, 1], columns[:, 2] = found.starts, found.ends
            self.streams.append(found.stream)
            parts.append(columns)
            documents.append(found.documents)
        order = np.argsort(np.concatenate(documents), kind="stable")
        self.parts.append(np.concatenate(parts)[order])
        self.waiting += len(order)

    def flush(self, *, last: bool = False) -> bool:
        """Write all full shards, with `last` also what is left; returns whether any was written."""
        if self.waiting < self.size and not (last and self.waiting):
            return False
        table = np.concatenate([self.table, *self.parts])
        whole = len(table) if last else len(table) // self.size * self.size
        for start in range(0, whole, self.size):
            self._write(table[start : min(start + self.size, whole)])
        self._keep(table[whole:])
        return True

    def _write(self, table: np.ndarray) -> None:
        table = table[self.random.permutation(len(table))]
        prefix = self.folder / f"{self.split}_{self.shards}"
        lengths = table[:, 2] - table[:, 1] + len(self.bos)
        domains = write_side(self.folder, "domain", self.shards, table[:, 3].astype(np.uint8))
        write_shard(prefix, lengths, self._gather(table), self.dtype)
        self.files += [f"{prefix.name}.bin", f"{prefix.name}.idx", domains]
        self.shards += 1
        self.rows += len(lengths)
        self.tokens += int(lengths.sum())

    def _gather(self, table: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(table), GROUP):
            parts = []
            for stream, first, end, _ in table[start : start + GROUP].tolist():
                parts += [self.bos, self.streams[stream][first:end]]
            yield np.concatenate(parts)

    def _keep(self, table: np.ndarray) -> None:
        """Hold on to the sequences of table alone."""
        tokens = [self.streams[s][first:end] for s, first, end, _ in table.tolist()]
        ends = np.cumsum([len(part) for part in tokens], dtype=np.int64)
        sizes = table[:, 2] - table[:, 1]
        columns = [np.zeros_like(sizes), ends - sizes, ends, table[:, 3]]
        self.table, self.parts = np.stack(columns, axis=1), []
        self.streams = [np.concatenate([self.bos[:0], *tokens])]
        self.waiting = len(table)

    def state(self) -> dict[str, np.ndarray]:
        """What is not in the files, right after a flush, for resume."""
        assert not self.parts, "the state is taken right after a flush"
        counts = np.array([self.shards, self.rows, self.tokens])
        return dict(zip(self.STATE, (self.streams[0], self.table, counts), strict=True))

    def resume(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a state."""
        self.streams, self.table = [state["tokens"]], state["sequences"]
        self.waiting = len(self.table)
        self.shards, self.rows, self.tokens = state["counts"].tolist()
        for shard in range(self.shards):
            self.random.permutation(self.size)  # the generator stands where it stood
            names = (f"{self.split}_{shard}.bin", f"{self.split}_{shard}.idx")
            self.files += [*names, f"domain_{shard}.npy"]
