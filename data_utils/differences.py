"""Differences as labels: r of the rows of a corpus that is a part of the scored one, or all of it.

A finished store of differences (miniplm/difference.py) has one float64 per scored row in FILE, NaN
where no token counts.
"""

from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.corpus import Corpus, recorded_corpus
from data_utils.errors import InputError

FILE, TYPE = "difference.npy", "difference"
FIX = "run scripts/miniplm/difference_sampling/compute_difference_scores.py"


def open_store(folder: Path) -> artefact.Manifest:
    """The manifest of a store of differences, its checksums compared; InputError for another."""
    manifest = artefact.require(folder, "scores", FIX, contents=True)
    if manifest is None or manifest.content.get("type") != TYPE:
        raise InputError("this is not a store of differences", where=folder, fix=FIX)
    return manifest


class Labels:
    """r of each row of a corpus. Raises InputError if the store does not have them."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self.folder, self.manifest = folder, open_store(folder)
        begin = self._labelled(corpus).first_row - self.manifest.counts["first_row"]
        stored = np.load(folder / FILE, mmap_mode="r", allow_pickle=False)
        self.r = np.array(stored[begin : begin + len(corpus)])  # [rows] float64
        known = self.r[~np.isnan(self.r)]
        if not len(known) or known.min() == known.max():
            raise InputError(
                "the labels of these rows are all undefined, or all the same",
                where=folder,
                fix="give more labelled shards (DATA_DIR), or score others",
            )
        self.mean, self.std = float(known.mean()), float(known.std())

    def standardised(self, rows: np.ndarray) -> np.ndarray:
        """(r - mean) / standard deviation of the corpus's r, at rows [n]: float32, NaN as r is."""
        return ((self.r[rows] - self.mean) / self.std).astype(np.float32)

    def _labelled(self, corpus: Corpus) -> Corpus:
        """The scored corpus, opened on the shards that `corpus` consists of."""
        scored = self.manifest.input_fingerprint("corpus")
        origins = corpus.origins()
        shards = origins.get(scored)
        sampled = corpus.side("generated", np.empty(0, np.int64)) is not None  # other tokens
        if shards is None or (sampled and scored != corpus.identity["fingerprint"]):
            raise InputError(
                "the labels are of another corpus than the one that was split",
                where=self.folder,
                expected=f"corpus {' or '.join(fingerprint[:12] for fingerprint in origins)}",
                found=str(scored)[:12],
                fix="make DATA_DIR of the scored corpus's shards (tools/split_ref_data.py)",
            )
        (first, last), (begin, end) = shards, self.manifest.content["shards"]
        if not begin <= first < last <= end:
            raise InputError(
                "the labels do not cover the shards to train on",
                where=self.folder,
                expected=f"shards inside {begin}:{end}",
                found=f"{first}:{last}",
                fix="make DATA_DIR of labelled shards (tools/split_ref_data.py --shards)",
            )
        what = "that the labels are of"
        whole = self.manifest.inputs["corpus"]
        part = recorded_corpus(
            self.folder, whole, what, "put the scored corpus back", (first, last)
        )
        rows = np.arange(len(part))
        if len(part) != len(corpus) or (part.lengths(rows) != corpus.lengths(rows)).any():
            raise InputError(
                "these are not the rows of the labelled shards",
                where=corpus.folder,
                expected=f"all rows of shards {first}:{last} of {part.folder}",
                found=f"{len(corpus)} rows",
                fix="make DATA_DIR with tools/split_ref_data.py",
            )
        return part
