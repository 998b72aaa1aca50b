"""Score stores: what a model says of every sequence of a corpus.

The blocks of an elastic job (data_utils/elastic.py) with `sum` (float32, natural log-probabilities
summed over the counted positions) and `count` (int32, counted positions) of each row. A store of
imported scores has `mean` (float32, mean natural log-probability per counted position) in place of
the sum, a proxy's store `r` (float32, the difference that it predicts, in nats per token).
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.blocks import block_path
from data_utils.corpus import Corpus, shard_range
from data_utils.elastic import FILL, Arrays, BlockFiles
from data_utils.errors import ArtefactError, InputError

VALUES = {"log-probabilities": "sum", "mean log-probabilities": "mean"}  # a type's array
PREDICTED = {"proxy differences": "r"}
PREDICT = "run scripts/miniplm/proxy/score.sh BASE_PATH to its end"


class Scores:
    """A finished score store over the corpus rows first_row .. first_row + len - 1."""

    TYPES, WHAT = VALUES, "a score store"

    def __init__(self, folder: Path, fix: str) -> None:
        manifest = artefact.require(folder, "scores", fix)
        if manifest is None or manifest.content.get("type") not in self.TYPES:
            raise InputError(f"this is not {self.WHAT}", where=folder, fix=fix)
        self.folder, self.manifest = folder, manifest
        self.identity, self.files = manifest.identity, BlockFiles.of(manifest)
        self.shards, self.first_row = tuple(manifest.content["shards"]), self.files.first_row

    def __len__(self) -> int:
        return self.files.rows

    @property
    def seen_in_training(self) -> bool:
        """Whether the model was trained on some of the rows; ArtefactError if not recorded."""
        if "seen_in_training" not in self.manifest.counts:
            raise ArtefactError(
                "an earlier version made these scores and did not record what the model has seen",
                where=self.folder,
                fix=f"remove {artefact.MANIFEST} there and run the scoring again: blocks are kept",
            )
        return self.manifest.counts["seen_in_training"]

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean natural log-probability per counted token [n] float64, NaN where none is; counts).

        Every block is checked; raises ArtefactError.
        """
        means, counts = np.full(len(self), np.nan), np.empty(len(self), np.int32)
        fix = FILL.format(f" and {artefact.MANIFEST}")
        for block in range(self.files.count):
            arrays, about = self.files.read(block, fix)
            examine(arrays, about["first_row"], block_path(self.folder, block), fix)
            span, number = self.files.span(block), arrays["count"]
            divisor = number if "sum" in arrays else 1
            values = values_of(arrays)
            np.divide(values, divisor, out=means[span], where=number > 0, dtype=np.float64)
            counts[span] = number
        return means, counts


class Predictions(Scores):
    """The same of a proxy's store, whose means() are the r that it predicts."""

    TYPES, WHAT = PREDICTED, "a store of a proxy's predictions"

    def __init__(self, folder: Path, fix: str = PREDICT) -> None:
        super().__init__(folder, fix)

    @cached_property
    def r(self) -> np.ndarray:
        """[n] float64, in nats per token; NaN where no token counts."""
        return self.means()[0]

    def at(self, first_row: int, count: int) -> np.ndarray:
        """r of corpus rows first_row .. first_row + count - 1, [count]; NaN where not scored."""
        found, shift = np.full(count, np.nan), self.first_row - first_row
        begin, end = max(shift, 0), min(shift + len(self), count)
        if begin < end:
            found[begin:end] = self.r[begin - shift : end - shift]
        return found


def predictions_folder(scores: Path, teacher_name: str, ref_name: str) -> Path:
    """Where a proxy's predictions of the difference of these two models are."""
    return scores / f"proxy-{teacher_name}-{ref_name}"


def require_corpus(manifest: artefact.Manifest, corpus: Corpus) -> None:
    """InputError for a store of another corpus; an ArtefactError if it does not say which."""
    scored = manifest.input_fingerprint("corpus")
    if scored is None or "seen_in_training" not in manifest.counts:
        what = "the scores were made by an earlier version, which did not record their corpus"
        fix = "remove this folder and make them again"
        raise ArtefactError(what, where=manifest.folder, fix=fix)
    if scored != corpus.identity["fingerprint"]:
        raise InputError(
            "the scores are of another corpus",
            where=manifest.folder,
            expected=f"corpus {corpus.identity['fingerprint'][:12]}",
            found=scored[:12],
            fix="give the corpus that was scored (DATA_DIR), or score this one",
        )


def values_of(arrays: Arrays) -> np.ndarray:
    """The sums, means or predictions of a block, [rows] float32."""
    return next(arrays[name] for name in (VALUES | PREDICTED).values() if name in arrays)


def examine(
    arrays: Arrays, first_row: int, path: Path, fix: str = FILL.format("")
) -> dict[str, int]:
    """What a store's manifest counts of a block; ArtefactError for a score that is not finite."""
    values, counts = values_of(arrays), arrays["count"]
    bad = first_bad(values, counts)
    if bad is not None:
        what = f"the score of row {first_row + bad} is {values[bad]}"
        raise ArtefactError(what, where=path, fix=fix)
    return {
        "without_counted_tokens": int((counts == 0).sum()),
        "counted_tokens": int(counts.sum(dtype=np.int64)),
    }


def first_bad(values: np.ndarray, counts: np.ndarray) -> int | None:
    """The first row whose value is not finite although tokens are counted."""
    bad = np.flatnonzero(~np.isfinite(values) & (counts > 0))
    return int(bad[0]) if len(bad) else None


def open_shards(folder: Path, shards: str) -> tuple[Corpus, int]:
    """(the shards FIRST:LAST of a corpus, the first row of these in all of it); or InputError."""
    whole = Corpus(folder)
    first, last = shard_range(shards)
    if first >= whole.all_shards:
        raise InputError(
            f"SCORE_SHARDS={shards}: the corpus has {whole.all_shards} shards",
            where=folder,
            fix="choose SCORE_SHARDS below that, or tokenize with a smaller SHARD_SIZE",
        )
    return Corpus(folder, shards=(first, last)), sum(len(shard) for shard in whole.shards[:first])


def seen_shards(corpus: Corpus, model_folder: Path) -> str:
    """The shards FIRST:LAST that the model was trained on, "" if none of the corpus's are."""
    manifest = artefact.read_manifest(model_folder)
    seen = manifest.trained_on(corpus.identity["fingerprint"]) if manifest else None
    if seen is None or seen[0] >= corpus.last_shard or corpus.first_shard >= seen[1]:
        return ""
    return f"{seen[0]}:{min(seen[1], corpus.all_shards)}"
