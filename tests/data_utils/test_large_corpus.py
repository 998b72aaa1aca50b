"""A corpus of 250 shards of a million sequences: what opening and reading it costs.

The shards share one index (hard links); their tokens are holes of sparse files. pytest -s prints
the figures.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from data_utils import artefact
from data_utils.program import CODE_ROOT
from data_utils.shards import HEADER, MAGIC

SHARDS, ROWS, LENGTH = 250, 1_000_000, 1025
READ = """
import json, os, re, resource, sys, time
from pathlib import Path
import numpy as np
from data_utils.corpus import Corpus
from data_utils.program import run

resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[2:])))

def usage():
    status = Path("/proc/self/status").read_text()
    kilobytes = int(re.search(r"VmRSS:\\s+(\\d+)", status)[1])
    read = int(re.search(r"rchar: (\\d+)", Path("/proc/self/io").read_text())[1])
    return kilobytes / 1024, len(os.listdir("/proc/self/fd")), read / 1e6

def measure():
    before = usage()
    started = time.monotonic()
    corpus = Corpus(Path(sys.argv[1]))
    found = {"seconds": time.monotonic() - started, "rows": len(corpus)}
    opened = usage()
    found.update(memory=opened[0] - before[0], read=opened[2] - before[2])
    found["descriptors"] = opened[1] - before[1]
    rows = np.linspace(0, len(corpus) - 1, 250).astype(int)
    started = time.monotonic()
    tokens, lengths = corpus.batch(rows[-8:], 7)
    found["batch"] = time.monotonic() - started
    tokens, lengths = corpus.batch(rows, 7)
    found["shape"] = tokens.shape
    found["domains"] = len(corpus.side("domain", rows))
    more = [Corpus(Path(sys.argv[1])) for _ in range(2)]
    found["others"] = [len(other.batch(rows, 7)[1]) for other in more]  # 1,500 files together
    print(json.dumps(found))

run(measure)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / f"qwen-{LENGTH}"
    folder.mkdir()
    with open(folder / "data_0.idx", "wb") as file:
        file.write(HEADER.pack(MAGIC, 1, 4, ROWS, ROWS + 1))
        file.write(np.full(ROWS, LENGTH, "<i4"))
        file.write(np.arange(ROWS, dtype="<i8") * LENGTH * 4)
        file.write(np.arange(ROWS + 1, dtype="<i8"))
    with open(folder / "data_0.bin", "wb") as file:
        os.ftruncate(file.fileno(), 4 * ROWS * LENGTH)
    np.save(folder / "domain_0.npy", np.zeros(ROWS, np.uint8))
    for shard in range(1, SHARDS):
        for name in ("data_{}.idx", "data_{}.bin", "domain_{}.npy"):
            os.link(folder / name.format(0), folder / name.format(shard))
    return folder


def read(folder, soft, hard):
    """A process of its own with these limits of open files."""
    command = [sys.executable, "-c", READ, folder, str(soft), str(hard)]
    return subprocess.run(command, cwd=CODE_ROOT, capture_output=True, text=True)


def write_manifest(folder):
    """A manifest with all the files, whose checksums nobody computed."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    files = [{"name": n, "size": size, "sha256": "0" * 64} for n, size in sizes.items()]
    content = {"max_length": LENGTH}
    artefact.Manifest(folder, "corpus", artefact.FORMAT, content, {}, {}, files, {}, {}).write()


@pytest.mark.parametrize("manifest", [False, True])
def test_opening_reads_each_row_once_takes_little_memory_and_opens_no_file(folder, manifest):
    if manifest:
        write_manifest(folder)
    done = read(folder, 1024, 4096)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(f"manifest {manifest}: {found}")
    assert found["rows"] == SHARDS * ROWS and found["shape"] == [250, LENGTH]
    assert found["memory"] < 100  # megabytes; the indices have 5,000
    assert found["read"] < 500 + 12 * SHARDS * ROWS / 1e6  # all lengths and offsets are checked
    assert found["descriptors"] == 0 and found["domains"] == 250
    assert found["batch"] < 1 and found["others"] == [250, 250]


def test_too_low_a_hard_limit_of_open_files_is_the_environment_s_fault(folder):
    done = read(folder, 256, 512)
    assert done.returncode == 4 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "250 shards" in done.stderr and "found 512" in done.stderr and "ulimit" in done.stderr
