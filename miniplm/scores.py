"""Score stores: what a model says of every sequence of a corpus.

A folder of blocks, block_000000.safetensors for rows first + 0 .. first + B - 1 of the corpus and
so on: `sum` (float32, natural log-probabilities summed over the counted positions) and `count`
(int32, counted positions); its metadata name device and precision.
"""

from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.errors import ArtefactError, InputError

SUFFIX = ".safetensors"


class Scores:
    """A finished score store over the corpus rows first_row .. first_row + len - 1."""

    def __init__(self, folder: Path, fix: str) -> None:
        manifest = artefact.require(folder, "scores", fix)
        if manifest is None or manifest["content"].get("type") != "log-probabilities":
            raise InputError("this is no score store", where=folder, fix=fix)
        self.folder, self.manifest = folder, manifest
        self.identity = {"kind": "scores", "fingerprint": manifest["fingerprint"]}
        self.shards = tuple(manifest["content"]["shards"])
        self.first_row = manifest["counts"]["first_row"]
        self.block_size = manifest["content"]["block_size"]

    def __len__(self) -> int:
        return self.manifest["counts"]["sequences"]

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """(sums [n] float32, counts [n] int32), checked to be finite where anything is counted."""
        n = len(self)
        sums, counts = np.empty(n, np.float32), np.empty(n, np.int32)
        for block, start in enumerate(range(0, n, self.block_size)):
            part = read_block(self.folder / f"block_{block:06d}{SUFFIX}")
            size = len(sums[start : start + self.block_size])
            if len(part["sum"]) != size or len(part["count"]) != size:
                raise ArtefactError(
                    "a block has the wrong number of rows",
                    where=self.folder / f"block_{block:06d}{SUFFIX}",
                    expected=size,
                    found=len(part["sum"]),
                    fix="remove the store and score again",
                )
            sums[start : start + size], counts[start : start + size] = part["sum"], part["count"]
        bad = np.flatnonzero(~np.isfinite(sums) & (counts > 0))
        if len(bad):
            raise ArtefactError(
                f"the score of row {self.first_row + int(bad[0])} is {sums[bad[0]]}",
                where=self.folder,
                fix="remove the store and score again",
            )
        return sums, counts


def read_block(path: Path) -> dict[str, np.ndarray]:
    """The arrays of one block; a file that is none is an error."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        fix = "remove this file and run the scoring again: it fills the gap"
        raise ArtefactError(f"the block cannot be read ({error})", where=path, fix=fix) from error


def write_block(path: Path, sums: np.ndarray, counts: np.ndarray, made_on: str) -> None:
    """Write one block; made_on says device and precision."""
    from safetensors.numpy import save_file

    save_file({"sum": sums, "count": counts}, path, metadata={"made_on": made_on})
