"""Files mapped back to back: contents, sharing, no descriptors, given back at the end."""

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from data_utils.mapped import map_files
from data_utils.start import CODE_ROOT

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
from data_utils.start import run
Path(sys.argv[1]).touch()
resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
run(lambda: map_files([Path(sys.argv[1])], [1 << 40]))
"""
    command = [sys.executable, "-c", code, tmp_path / "a.bin"]
    done = subprocess.run(command, cwd=CODE_ROOT, capture_output=True, text=True)
    assert done.returncode == 4 and len(done.stderr.splitlines()) == 1
    assert re.search(r"cannot be mapped \(Cannot allocate memory\).*ulimit -v", done.stderr)
