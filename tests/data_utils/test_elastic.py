"""Elastic jobs with a tiny compute function: whoever works or dies, the bytes are the same.

.venv/bin/python -m pytest tests/data_utils/test_elastic.py
"""

import functools
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact, blocks
from data_utils.artefact_writer import Output
from data_utils.elastic import Arrays, BlockFiles, ElasticJob
from data_utils.errors import ArtefactError, InputError

FORK = multiprocessing.get_context("fork")
ROWS, SIZE, FIRST = 52, 7, 100  # 8 blocks, the last one of 3 rows


def job(folder: Path, **content: object) -> ElasticJob:
    output = Output(folder, "scores", "tests", {"block_size": SIZE, **content}, {})
    return ElasticJob(output, ROWS, SIZE, FIRST, quiet=True)


def compute(rows: np.ndarray, advance, pause: float = 0.0) -> Arrays:
    """Of row i its square, and i mod 4 times its number: a fixed and a ragged array."""
    time.sleep(pause)
    counts = (rows % 4).astype(np.int32)
    advance(len(rows))
    return {"count": counts, "square": rows**2, "numbers": np.repeat(rows, counts)}


def examine(arrays: Arrays, first_row: int, path: Path) -> dict[str, int]:
    if (arrays["square"] < 0).any():
        raise ArtefactError("a square is negative", where=path, fix="none")
    return {"numbers": len(arrays["numbers"])}


def work(folder: Path, pause: float = 0.0, **content: object) -> artefact.Manifest | None:
    paused = functools.partial(compute, pause=pause)
    return job(folder, **content).run(lambda: (paused, "CPU"), examine, more=True)


def slow_workers(folder: Path, count: int) -> list:
    """Processes that are at work on the job; at least two blocks are published."""

    def run() -> None:
        blocks.HEARTBEAT, blocks.STALE, blocks.FIRST_WAIT = 0.1, 1.0, 0.02
        work(folder, pause=0.1)

    workers = [FORK.Process(target=run) for _ in range(count)]
    for worker in workers:
        worker.start()
    while len(list(folder.glob("block_*"))) < 2:
        assert all(worker.is_alive() for worker in workers)
        time.sleep(0.005)
    return workers


@pytest.fixture
def undisturbed(tmp_path) -> dict[str, bytes]:
    assert work(tmp_path / "undisturbed").counts["more"] is True
    return content(tmp_path / "undisturbed")


def content(folder: Path) -> dict[str, bytes]:
    """The block files of a finished artefact; nothing else is in its folder."""
    manifest = artefact.require(folder, "scores", "", contents=True)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    names = {entry["name"] for entry in manifest.files}
    assert set(found) == names | {artefact.MANIFEST, artefact.SETTINGS, artefact.LOCK}
    return {name: found[name] for name in names}


def test_arrays_come_back_and_counts_add_up(tmp_path, capsys):
    manifest, expected = work(tmp_path / "a"), compute(np.arange(ROWS), abs)
    numbers = {"sequences": ROWS, "first_row": FIRST, "numbers": len(expected["numbers"])}
    assert manifest.counts == {**numbers, "more": True}
    assert manifest.report == {"blocks_made_on": {"CPU": 8}}
    files = BlockFiles.of(artefact.read_manifest(tmp_path / "a"))
    parts = [files.read(block)[0] for block in range(files.count)]
    for name, values in expected.items():
        found = np.concatenate([part[name] for part in parts])
        np.testing.assert_array_equal(found, values)
        assert found.dtype == values.dtype
    assert work(tmp_path / "a") is None and "is there already" in capsys.readouterr().out


def test_three_workers_one_killed_and_a_new_one(tmp_path, undisturbed):
    workers = slow_workers(tmp_path / "a", 3)
    workers[0].kill()
    workers += slow_workers(tmp_path / "a", 1)
    for worker in workers:
        worker.join(60)
    codes = [worker.exitcode for worker in workers]
    assert codes == [-signal.SIGKILL, 0, 0, 0] and content(tmp_path / "a") == undisturbed


def test_all_killed_and_resumed(tmp_path, undisturbed):
    """What is published is not computed again; claims of dead workers hold nothing up."""
    folder = tmp_path / "a"
    for worker in slow_workers(folder, 3):
        worker.kill()
        worker.join()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("block_*")}
    assert 2 <= len(before) < 8 and not (folder / artefact.MANIFEST).exists()
    missing = [f".claim_{n:06d}" for n in range(8) if not blocks.block_path(folder, n).exists()]
    for name, age in zip(missing, (1e6, -1e6), strict=False):  # old, and of a clock set back
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age,) * 2)
    for worker in slow_workers(folder, 1):
        worker.join(60)
        assert worker.exitcode == 0
    assert content(folder) == undisturbed
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


@pytest.mark.parametrize(
    "damage, said",
    [
        ("cut", "cut short"),
        ("flipped", "checksum"),
        ("another job", "another corpus, model or setting"),
        ("another place", "other rows"),
        ("another size", "number of rows"),
        ("refused by examine", "square"),
    ],
)
def test_a_bad_block_is_refused_and_removing_it_fills_the_gap(tmp_path, undisturbed, damage, said):
    folder = shutil.copytree(tmp_path / "undisturbed", tmp_path / "a")
    manifest = (folder / artefact.MANIFEST).read_bytes()
    (folder / artefact.MANIFEST).unlink()
    path = blocks.block_path(folder, 2)
    whole, files = path.read_bytes(), job(folder).files
    if damage == "cut":
        path.write_bytes(whole[:-4])
    elif damage == "flipped":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "another job":
        work(tmp_path / "other", seed=1)
        shutil.copyfile(tmp_path / "other" / path.name, path)
    elif damage == "another place":
        shutil.copyfile(blocks.block_path(folder, 1), path)
    else:
        rows = np.arange(14, 20 if damage == "another size" else 21)
        files.write(path, 2, {**compute(rows, abs), "square": -rows}, "CPU")
    with pytest.raises(ArtefactError, match=f"{said}.* in {path}"):
        work(folder)
    (folder / artefact.MANIFEST).write_bytes(manifest)  # and nobody reads it as finished
    with pytest.raises(ArtefactError, match=f"in {path}"):
        artefact.require(folder, "scores", "", contents=True)
    (folder / artefact.MANIFEST).unlink()
    path.unlink()
    assert work(folder) and content(folder) == undisturbed


def test_a_missing_block_of_a_finished_artefact(tmp_path, undisturbed):
    """The message's way back costs one block, not the artefact."""
    folder = tmp_path / "undisturbed"
    blocks.block_path(folder, 4).unlink()
    with pytest.raises(ArtefactError, match="missing in .*block_000004.*Fix: remove this file"):
        work(folder)
    (folder / artefact.MANIFEST).unlink()
    assert work(folder) and content(folder) == undisturbed


def test_another_job_is_refused(tmp_path):
    """Before it is finished, and afterwards."""
    job(tmp_path / "a").output.begin()
    for _ in range(2):
        with pytest.raises(InputError, match="begun with another seed"):
            work(tmp_path / "a", seed=1)
        work(tmp_path / "a")
