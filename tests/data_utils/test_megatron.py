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
TYPES = [np.dtype("<u2"), np.dtype("<i4")]
READ = """
import json, sys
from megatron.core.datasets.indexed_dataset import IndexedDataset
found = []
for prefix in sys.argv[1:]:
    for mmap in (True, False):
        data = IndexedDataset(prefix, mmap=mmap)
        rows = [data[i].tolist() for i in range(len(data))]
        found.append([rows, data.document_indices.tolist(), data.index.dtype.__name__])
print(json.dumps(found))
"""
WRITE = """
import json, sys
import numpy, torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
for name in ("uint16", "int32"):
    prefix = f"{sys.argv[1]}/{name}/data_0"
    builder = IndexedDatasetBuilder(prefix + ".bin", dtype=getattr(numpy, name))
    for row in json.loads(sys.argv[2]):
        builder.add_item(torch.tensor(row))
    builder.end_document()
    builder.finalize(prefix + ".idx")
"""


@pytest.fixture(scope="module")
def megatron(tmp_path_factory):
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


def run(megatron, code, *arguments):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(megatron)},
        capture_output=True,
        text=True,
    )


def test_megatron_reads_our_shards(megatron, tmp_path):
    for dtype in TYPES:
        write_shard(tmp_path / dtype.name, [len(row) for row in ROWS], map(np.array, ROWS), dtype)
    done = run(megatron, READ, *(tmp_path / dtype.name for dtype in TYPES))
    assert done.returncode == 0, done.stderr
    expected = [[ROWS, [0, 1, 2, 3, 4], dtype.name] for dtype in TYPES for _ in range(2)]
    assert json.loads(done.stdout) == expected


def test_megatron_refuses_the_original_s_single_document_entry(megatron, tmp_path):
    """Why write_shard writes an entry a sequence."""
    write_shard(tmp_path / "data_0", [len(row) for row in ROWS], map(np.array, ROWS), TYPES[0])
    index = tmp_path / "data_0.idx"
    content = bytearray(index.read_bytes()[: 34 + 12 * len(ROWS)])
    content[26:34] = (1).to_bytes(8, "little")
    index.write_bytes(content + bytes(8))
    done = run(megatron, READ, tmp_path / "data_0")
    assert done.returncode != 0 and "AssertionError" in done.stderr
    assert [Corpus(tmp_path).row(i).tolist() for i in range(len(ROWS))] == ROWS


def test_we_read_what_megatron_writes(megatron, tmp_path):
    for dtype in TYPES:
        (tmp_path / dtype.name).mkdir()
    done = run(megatron, WRITE, tmp_path, json.dumps(ROWS))
    assert done.returncode == 0, done.stderr
    for dtype in TYPES:
        corpus = Corpus(tmp_path / dtype.name)
        assert corpus.dtype == dtype
        assert [corpus.row(i).tolist() for i in range(len(corpus))] == ROWS
