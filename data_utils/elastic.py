"""Elastic jobs: any number of workers on any nodes compute arrays for all rows of a corpus.

A worker takes a block of rows that is missing (data_utils/blocks.py), computes its arrays and
publishes them as one file. Once all are published, one worker checks them and writes the manifest.
Run again, a job computes only what is missing.

Format of block_000000.safetensors: named arrays, among them `count` (int32, one number per row).
The others have one entry per row, or `count` of them per row, back to back. The metadata `block`
is a JSON object: job (hash of the output's settings and inputs), first_row (in the corpus), made_on
(device and precision) and sha256 (of the arrays).
"""

import collections
import contextlib
import hashlib
import json
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_utils import artefact
from data_utils.artefact_writer import Output, lock
from data_utils.blocks import Blocks, block_path
from data_utils.errors import ArtefactError

Arrays = dict[str, np.ndarray]
# (rows [n] int64, counted from the job's first; advance(k) after k more of them) -> their arrays
Compute = Callable[[np.ndarray, Callable[[int], object]], Arrays]
# (a block's arrays, its first row in the corpus, its file) -> what the manifest counts of it;
# raises ArtefactError for what must not get into an artefact
Examine = Callable[[Arrays, int, Path], dict[str, int]]
TYPES = {"I32": "<i4", "U8": "u1", "F16": "<f2", "F32": "<f4"}  # safetensors' names
FILL = "remove this file{} and run the stage that made it again: it fills the gap"


def job_key(content: dict, inputs: dict) -> str:
    """What ties a block to its job: a hash of the artefact's settings and inputs."""
    fingerprints = {name: entry["fingerprint"] for name, entry in inputs.items()}
    return artefact.canonical_hash([content, fingerprints])


@dataclass(frozen=True)
class BlockFiles:
    """The files of an artefact of `rows` rows, the corpus's first_row and on, in blocks."""

    folder: Path
    key: str
    rows: int
    block_size: int
    first_row: int

    @classmethod
    def of(cls, manifest: artefact.Manifest) -> "BlockFiles":
        """The blocks of a finished artefact."""
        content, counts = manifest.content, manifest.counts
        key = job_key(content, manifest.inputs)
        size = content["block_size"]
        return cls(manifest.folder, key, counts["sequences"], size, counts["first_row"])

    @property
    def count(self) -> int:
        """Number of blocks."""
        return -(-self.rows // self.block_size)

    def span(self, block: int) -> slice:
        """The rows of a block, counted from the artefact's first."""
        return slice(block * self.block_size, min((block + 1) * self.block_size, self.rows))

    def write(self, path: Path, block: int, arrays: Arrays, made_on: str) -> None:
        """Write a block's arrays to path."""
        from safetensors.numpy import save_file

        about = {"job": self.key, "made_on": made_on, "sha256": digest(arrays)}
        about["first_row"] = self.first_row + self.span(block).start
        # One key: safetensors writes several in a random order, and equal blocks have equal bytes.
        save_file(arrays, path, metadata={"block": json.dumps(about, sort_keys=True)})

    def read(self, block: int, fix: str = FILL.format("")) -> tuple[Arrays, dict]:
        """(arrays, description) of a block; ArtefactError if it is damaged or another one."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        about, path = self.check(block, fix), block_path(self.folder, block)
        try:
            arrays = load_file(path)
        except (SafetensorError, OSError, KeyError) as error:
            what = f"the block cannot be read ({error})"
            raise ArtefactError(what, where=path, fix=fix) from error
        require_digest(arrays, about, path, fix)
        return arrays, about

    def map(self, block: int, *, verify: bool, fix: str = FILL.format("")) -> Arrays:
        """A block's arrays as read-only memory maps; ArtefactError as in read().

        verify: compare the checksum too, which reads the whole block.
        """
        about, path = self.check(block, fix), block_path(self.folder, block)
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length))
        del header["__metadata__"]
        data, arrays = np.memmap(path, np.uint8, "r", offset=8 + length), {}
        for name, entry in header.items():
            stretch = data[slice(*entry["data_offsets"])].view(TYPES[entry["dtype"]])
            arrays[name] = stretch.reshape(entry["shape"])
        if verify:
            require_digest(arrays, about, path, fix)
        return arrays

    def check(self, block: int, fix: str = FILL.format("")) -> dict:
        """A block's description, from its header; ArtefactError if it is of another job."""
        path, span = block_path(self.folder, block), self.span(block)
        about = describe_block(path, fix)
        for what, found, expected in (
            ("is of another corpus, model or setting", about["job"][:12], self.key[:12]),
            ("has the wrong number of rows", about["rows"], span.stop - span.start),
            ("is of other rows of the corpus", about["first_row"], self.first_row + span.start),
        ):
            if found != expected:
                raise ArtefactError(
                    f"the block {what}", where=path, expected=expected, found=found, fix=fix
                )
        return about


def require_digest(arrays: Arrays, about: dict, path: Path, fix: str) -> None:
    """ArtefactError if the arrays are not those that the block was written with."""
    if digest(arrays) != about["sha256"]:
        raise ArtefactError("the block's checksum does not hold", where=path, fix=fix)


def digest(arrays: Arrays) -> str:
    """SHA-256 of the arrays' bytes in the order of their names."""
    return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def describe_block(path: Path, fix: str) -> dict:
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


@dataclass
class ElasticJob:
    """The arrays of `rows` rows, the corpus's first_row and on, to be made for an output."""

    output: Output
    rows: int
    block_size: int
    first_row: int = 0
    quiet: bool = False  # without a progress line

    @cached_property
    def files(self) -> BlockFiles:
        """Its block files."""
        key = job_key(self.output.content, self.output.entries())
        return BlockFiles(self.output.folder, key, self.rows, self.block_size, self.first_row)

    @cached_property
    def blocks(self) -> Blocks:
        """This worker's claims and what is published."""
        return Blocks(self.output.folder, self.files.count)

    def is_done(self) -> bool:
        """Whether the artefact is finished; an error if it is damaged or of another job."""
        manifest = artefact.read_manifest(self.output.folder)
        if manifest is None:
            return False
        fix = FILL.format(f" (if it is there) and {artefact.MANIFEST}")
        artefact.check_files(manifest, fix, contents=False)
        return self.output.begin().done

    def run(
        self, load: Callable[[], tuple[Compute, str]], examine: Examine, **counts: object
    ) -> artefact.Manifest | None:
        """Compute what is missing together with all other workers, then finish the artefact.

        load gives (compute, made_on); it is called only if a block is missing. counts: more for
        the manifest. Returns the manifest if this worker has written it.
        """
        if self.is_done():
            print(f"{self.output.folder} is there already")
            return None
        self.begin()
        missing = set(self.blocks.missing())
        for block in set(range(self.files.count)) - missing:
            self.files.check(block)
        if missing:
            self.blocks.require_place()
            self._work(*load())
        return self._finish(examine, counts)

    def begin(self) -> None:
        """Make the output's folder ready; of two different jobs the second is refused."""
        with lock(self.output.folder, wait=True):
            self.output.begin()

    def _work(self, compute: Compute, made_on: str) -> None:
        bar = tqdm(
            total=self.rows,
            initial=self._published(),
            desc=self.output.folder.name,
            unit=" rows",
            smoothing=0,
            mininterval=1 if sys.stderr.isatty() else 30,
            disable=self.quiet,
        )
        tokens, seconds = 0, 0.0
        # Closing the generator gives the claim back when a signal ends the work.
        with bar, contextlib.closing(self.blocks.take()) as taken:
            for block in taken:
                began, span = time.monotonic(), self.files.span(block)
                arrays = compute(np.arange(span.start, span.stop), bar.update)
                seconds += time.monotonic() - began
                tokens += int(arrays["count"].sum(dtype=np.int64))
                self.publish(block, arrays, made_on)
                bar.set_postfix_str(f"{tokens / seconds:,.0f} tokens/s here", refresh=False)
                bar.update(self._published() - bar.n)  # with what the other workers have done

    def publish(self, block: int, arrays: Arrays, made_on: str) -> bool:
        """Publish a block; False if another worker was first."""
        return self.blocks.publish(
            block, lambda path: self.files.write(path, block, arrays, made_on)
        )

    def _published(self) -> int:
        """Rows in published blocks, all of them counted as full."""
        done = self.files.count - len(self.blocks.missing())
        return min(done * self.block_size, self.rows)

    def _finish(self, examine: Examine, more: dict) -> artefact.Manifest | None:
        """Check all blocks, add up their counts and write the manifest, if no other worker has."""
        with lock(self.output.folder, wait=True):
            if artefact.read_manifest(self.output.folder) is not None:
                return None
            counts, made_on = collections.Counter(), collections.Counter()
            paths = [block_path(self.output.folder, block) for block in range(self.files.count)]
            for block, path in enumerate(paths):
                arrays, about = self.files.read(block)
                counts.update(examine(arrays, about["first_row"], path))
                made_on[about["made_on"]] += 1
            self.blocks.sweep()
            counts = {"sequences": self.rows, "first_row": self.first_row, **counts, **more}
            report = {"blocks_made_on": dict(made_on)}
            return self.output.finish([path.name for path in paths], counts, report)
