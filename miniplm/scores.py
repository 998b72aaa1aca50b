"""Score stores: what a model says of every sequence of a corpus.

A folder of blocks, block_000000.safetensors for rows first + 0 .. first + B - 1 of the corpus and
so on: `sum` (float32, natural log-probabilities summed over the counted positions) and `count`
(int32, counted positions). A store of imported scores has `mean` (float32, mean natural
log-probability a counted position) in place of the sum. The metadata of a block name device and
precision, the job and the rows that it belongs to, and the SHA-256 of its arrays.
"""

import functools
import hashlib
import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.blocks import Blocks
from data_utils.errors import ArtefactError, InputError

SUFFIX = ".safetensors"
VALUES = {"log-probabilities": "sum", "mean log-probabilities": "mean"}  # a type's array
FILL = "remove this file{} and run the scoring again: it fills the gap"


class Scores:
    """A finished score store over the corpus rows first_row .. first_row + len - 1."""

    def __init__(self, folder: Path, fix: str) -> None:
        manifest = artefact.require(folder, "scores", fix)
        if manifest is None or manifest.content.get("type") not in VALUES:
            raise InputError("this is not a score store", where=folder, fix=fix)
        self.folder, self.manifest = folder, manifest
        self.identity = manifest.identity
        self.shards = tuple(manifest.content["shards"])
        self.first_row = manifest.counts["first_row"]
        self.block_size = manifest.content["block_size"]
        self.value = VALUES[manifest.content["type"]]
        self.job = job_of(manifest.content, manifest.inputs)

    def __len__(self) -> int:
        return self.manifest.counts["sequences"]

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
        """(mean natural log-probability a counted token [n] float64, NaN where none is; counts)."""
        means, counts = np.full(len(self), np.nan), np.empty(len(self), np.int32)
        for part, values, number in self._blocks():
            divisor = 1 if self.value == "mean" else number
            np.divide(values, divisor, out=means[part], where=number > 0, dtype=np.float64)
            counts[part] = number
        return means, counts

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """(place in the store, values, counts) of each block, checked."""
        for block, start in enumerate(range(0, len(self), self.block_size)):
            part = slice(start, min(start + self.block_size, len(self)))
            path = self.folder / f"block_{block:06d}{SUFFIX}"
            fix = FILL.format(f" and {artefact.MANIFEST}")
            arrays = read_block(path, self.job, self.first_row + start, part.stop - start, fix)
            values, number = arrays[self.value], arrays["count"]
            bad = first_bad(values, number)
            if bad is not None:
                raise ArtefactError(
                    f"the score of row {self.first_row + start + bad} is {values[bad]}",
                    where=path,
                    fix=fix,
                )
            yield part, values, number


def first_bad(values: np.ndarray, counts: np.ndarray) -> int | None:
    """The first row whose value is no finite number although tokens are counted."""
    bad = np.flatnonzero(~np.isfinite(values) & (counts > 0))
    return int(bad[0]) if len(bad) else None


def job_of(content: dict, inputs: dict) -> str:
    """What ties a block to its job: a hash of the store's settings and inputs."""
    return artefact.canonical_hash(
        [content, {name: entry["fingerprint"] for name, entry in inputs.items()}]
    )


def write_block(path: Path, values: np.ndarray, counts: np.ndarray, made_on: str, job: str,
                first_row: int, value: str = "sum") -> None:  # fmt: skip
    """Write one block, the corpus's rows first_row and on; made_on says device and precision."""
    from safetensors.numpy import save_file

    arrays = {value: values, "count": counts}
    about = {"job": job, "made_on": made_on, "first_row": first_row, "sha256": digest(arrays)}
    # One key: safetensors writes several in a random order, and equal blocks have equal bytes.
    save_file(arrays, path, metadata={"block": json.dumps(about, sort_keys=True)})


def write_store(
    output: Output,
    blocks: Iterable[tuple[np.ndarray, np.ndarray, str]],
    first_row: int = 0,
    seen_in_training: bool = False,
) -> artefact.Manifest:
    """Write a store of these blocks, (values, counts, made_on) each.

    For one writer; what an interrupted one has left is replaced.
    """
    job = job_of(output.content, output.entries())
    value, parts = VALUES[output.content["type"]], Blocks(output.folder, 0, SUFFIX)
    files, rows, undefined, counted = [], 0, 0, 0
    for block, (values, counts, made_on) in enumerate(blocks):
        parts.path(block).unlink(missing_ok=True)
        write = functools.partial(
            write_block,
            values=values,
            counts=counts,
            made_on=made_on,
            job=job,
            first_row=first_row + rows,
            value=value,
        )
        parts.publish(block, write)
        files.append(parts.path(block).name)
        rows += len(values)
        undefined += int((counts == 0).sum())
        counted += int(counts.sum(dtype=np.int64))
    parts.sweep()
    return output.finish(files, store_counts(rows, first_row, undefined, counted, seen_in_training))


def store_counts(
    rows: int, first_row: int, undefined: int, counted: int, seen_in_training: bool
) -> dict:
    """What a store's manifest counts; undefined: rows without a counted token."""
    return {
        "sequences": rows,
        "first_row": first_row,
        "without_counted_tokens": undefined,
        "counted_tokens": counted,
        "seen_in_training": seen_in_training,
    }


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of the arrays' bytes in the order of their names."""
    return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def read_block(
    path: Path, job: str, first_row: int, rows: int, fix: str = FILL.format("")
) -> dict[str, np.ndarray]:
    """The arrays of one block; a file that is none, damaged or of something else is an error."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    about = check_block(path, job, first_row, rows, fix)
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, KeyError) as error:
        raise ArtefactError(f"the block cannot be read ({error})", where=path, fix=fix) from error
    if digest(arrays) != about["sha256"]:
        raise ArtefactError("the block's checksum does not hold", where=path, fix=fix)
    return arrays


def check_block(
    path: Path, job: str, first_row: int, rows: int, fix: str = FILL.format("")
) -> dict:
    """A block's description, refused if it is of another job or of other rows."""
    about = describe_block(path, fix)
    for what, found, expected in (
        ("is of another corpus, model or setting", about["job"][:12], job[:12]),
        ("has the wrong number of rows", about["rows"], rows),
        ("is of other rows of the corpus", about["first_row"], first_row),
    ):
        if found != expected:
            raise ArtefactError(
                f"the block {what}", where=path, expected=expected, found=found, fix=fix
            )
    return about


def describe_block(path: Path, fix: str = FILL.format("")) -> dict:
    """A block's metadata and `rows`, from its header alone; its size must be what that says.

    Format: uint64 length of the header, the header as JSON, the data (safetensors).
    """
    try:
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(min(length, 1 << 20)))
        about = dict(json.loads(header.pop("__metadata__")["block"]))
        ends = [entry["data_offsets"][1] for entry in header.values()]
        good = path.stat().st_size == 8 + length + max(ends)
        good &= {"job", "first_row", "made_on", "sha256"} <= about.keys()
        about["rows"] = header["count"]["shape"][0]
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
        good = False
    if not good:
        raise ArtefactError("the block cannot be read or is cut short", where=path, fix=fix)
    return about
