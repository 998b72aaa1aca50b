"""Files mapped back to back: contents, sharing, no descriptors, given back at the end."""

import ctypes
import errno
import mmap
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_utils import mapped
from data_utils.mapped import map_files, write_spans
from data_utils.program import CODE_ROOT

PAGE = mmap.PAGESIZE


def write_files(folder, sizes):
    generator = np.random.default_rng(0)
    contents = [generator.integers(1, 256, size, np.uint8).tobytes() for size in sizes]
    paths = [folder / f"{number}.bin" for number in range(len(sizes))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths, contents


def maps_of(folder):
    """(permissions, name) of this process's maps of files in folder."""
    lines = re.findall(rf"^\S+ (\S+) .* ({folder}/\S+)$", Path("/proc/self/maps").read_text(), re.M)
    return sorted(lines, key=lambda line: line[1])


def test_files_lie_back_to_back_with_zeros_between(tmp_path):
    sizes = [5, PAGE, 0, 3 * PAGE - 1, 1]
    paths, contents = write_files(tmp_path, sizes)
    data, starts = map_files(paths, sizes)
    assert starts.tolist() == [0, PAGE, 2 * PAGE, 2 * PAGE, 5 * PAGE]
    expected = bytearray(len(data))
    for start, content in zip(starts, contents, strict=True):
        expected[start : start + len(content)] = content
    assert data.tobytes() == expected  # reads every byte: nothing is out of reach
    assert len(data) >= starts[-1] + max(sizes)


def test_maps_are_shared_read_only_and_hold_no_descriptor(tmp_path):
    paths, _ = write_files(tmp_path, [10, 20, 30])
    descriptors = os.listdir("/proc/self/fd")
    data, _ = map_files(paths, [10, 20, 30])
    assert os.listdir("/proc/self/fd") == descriptors
    assert maps_of(tmp_path) == [("r--s", str(path)) for path in paths]
    assert not data.flags.writeable


def test_maps_live_as_long_as_a_view_of_them(tmp_path):
    paths, contents = write_files(tmp_path, [PAGE, PAGE])
    data, starts = map_files(paths, [PAGE, PAGE])
    view = data[starts[1] :].view("<u2")[:10]
    del data
    assert len(maps_of(tmp_path)) == 2 and view.tobytes() == contents[1][:20]
    del view
    assert maps_of(tmp_path) == []


def test_no_files_and_empty_files(tmp_path):
    paths, _ = write_files(tmp_path, [0])
    assert map_files([], [])[1].tolist() == []
    assert map_files(paths, [0])[1].tolist() == [0]


def test_too_little_address_space_is_the_environment_s_fault(tmp_path):
    code = """
import resource, sys
from pathlib import Path
from data_utils.mapped import map_files
from data_utils.program import run
Path(sys.argv[1]).touch()
resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
run(lambda: map_files([Path(sys.argv[1])], [1 << 40]))
"""
    command = [sys.executable, "-c", code, tmp_path / "a.bin"]
    done = subprocess.run(command, cwd=CODE_ROOT, capture_output=True, text=True)
    assert done.returncode == 4 and len(done.stderr.splitlines()) == 1
    assert re.search(r"cannot be mapped \(Cannot allocate memory\).*ulimit -v", done.stderr)


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 40)), max_size=3000),
    st.sampled_from([1, 2, 4]),
)
@settings(max_examples=30)
def test_spans_are_written_back_to_back(spans, size):
    values = np.arange(4000).astype(f"u{size}")
    starts, lengths = (np.array([s[i] for s in spans], np.int64) for i in (0, 1))
    with tempfile.TemporaryFile() as file:
        file.write(b"before")
        write_spans(file, values, starts, starts + lengths)
        file.write(b"behind")
        file.seek(0)
        expected = b"".join(values[s : s + n].tobytes() for s, n in spans)
        assert file.read() == b"before" + expected + b"behind"


def test_a_call_that_writes_only_a_part_is_gone_on_with():
    """A pipe takes what fits: the kernel stops in the middle of a stretch, as on a full disk."""
    values = np.random.default_rng(0).integers(0, 256, 3_000_000).astype(np.uint8)
    starts = np.arange(0, 3_000_000, 1500)
    read_end, write_end = os.pipe()
    received = []

    def receive():
        while part := os.read(read_end, 70_001):
            received.append(part)

    thread = threading.Thread(target=receive)
    thread.start()
    partial = []
    inner = mapped.LIBC.writev

    def short(descriptor, place, count):  # as if interrupted: some whole stretches, a part of one
        spans = (ctypes.c_uint64 * 4).from_address(place)
        if count >= 2 and spans[3] > 700:
            whole = spans[3]
            spans[3] = 700
            written = inner(descriptor, place, 2)
            spans[3] = whole
            partial.append(written)
            return written
        return inner(descriptor, place, count)

    with open(write_end, "wb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "LIBC", SimpleNamespace(writev=short))
        write_spans(file, values, starts, starts + 1500)
    thread.join()
    os.close(read_end)
    assert b"".join(received) == values.tobytes() and len(partial) > 900


def test_a_full_disk_is_the_system_s_error():
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError) as error:
        write_spans(file, np.arange(10), np.array([0]), np.array([10]))
    assert error.value.errno == errno.ENOSPC and error.value.filename == "/dev/full"
