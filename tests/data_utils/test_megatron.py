"""Megatron-LM itself, the package megatron-core, reads our shards, and we read what it writes."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from data_utils.corpus import Corpus
from data_utils.shards import write_shard

PACKAGE = "megatron-core==0.16.1"
ROWS = [[1, 2, 3], [4], [65_000, 5, 6, 7], [8, 9]]
LENGTHS = [len(row) for row in ROWS]
TYPES = [np.dtype("<u2"), np.dtype("<i4")]
# One process, as its imports take seconds: writes shards, reads ours, tries the original's.
CODE = """
import json, sys
from pathlib import Path
import numpy, torch
from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

folder, found = Path(sys.argv[1]), []
for name in ("uint16", "int32"):
    prefix = f"{folder}/theirs/{name}/data_0"
    builder = IndexedDatasetBuilder(prefix + ".bin", dtype=getattr(numpy, name))
    for row in json.loads(sys.argv[2]):
        builder.add_item(torch.tensor(row))
    builder.end_document()
    builder.finalize(prefix + ".idx")
    for mmap in (True, False):
        data = IndexedDataset(f"{folder}/{name}", mmap=mmap)
        rows = [data[i].tolist() for i in range(len(data))]
        found.append([rows, data.document_indices.tolist(), data.index.dtype.__name__])
try:
    IndexedDataset(f"{folder}/original/data_0")
except AssertionError:
    found.append("refused")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A folder with the unpacked package: its imports need nothing that is not installed."""
    folder = tmp_path_factory.mktemp("megatron")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--retries", "0", "--timeout", "20", "--dest", folder, PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"the package registry does not give {PACKAGE}: {done.stderr.strip()[-300:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def folder(package, tmp_path_factory):
    """Our shards, a shard with the original's single document entry, and a place for theirs."""
    folder = tmp_path_factory.mktemp("shards")
    for dtype in TYPES:
        write_shard(folder / dtype.name, LENGTHS, map(np.array, ROWS), dtype)
        (folder / "theirs" / dtype.name).mkdir(parents=True)
    (folder / "original").mkdir()
    write_shard(folder / "original/data_0", LENGTHS, map(np.array, ROWS), TYPES[0])
    index = folder / "original/data_0.idx"
    content = bytearray(index.read_bytes()[: 34 + 12 * len(ROWS)])
    content[26:34] = (1).to_bytes(8, "little")
    index.write_bytes(content + bytes(8))
    return folder


@pytest.fixture(scope="module")
def found(package, folder):
    """What Megatron-LM says."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, folder, json.dumps(ROWS)],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows_of(folder, dtype):
    corpus = Corpus(folder)
    assert corpus.dtype == dtype
    return [corpus.row(i).tolist() for i in range(len(corpus))]


def test_megatron_reads_our_shards(found):
    expected = [[ROWS, [0, 1, 2, 3, 4], dtype.name] for dtype in TYPES for _ in range(2)]
    assert found[:4] == expected


def test_megatron_refuses_the_original_s_single_document_entry(found, folder):
    """Why write_shard writes an entry a sequence."""
    assert found[4:] == ["refused"]
    assert rows_of(folder / "original", TYPES[0]) == ROWS


@pytest.mark.usefixtures("found")
def test_we_read_what_megatron_writes(folder):
    for dtype in TYPES:
        assert rows_of(folder / "theirs" / dtype.name, dtype) == ROWS
