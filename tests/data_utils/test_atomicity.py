"""kill -9 at every instant leaves an artefact in its old or its new state; one writer a folder."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact, artefact_writer, atomic_files
from data_utils.artefact_writer import Output, lock
from data_utils.errors import InputError
from data_utils.shards import write_shard
from data_utils.tokenizer import copy_tokenizer

FORK = multiprocessing.get_context("fork")
CALLS = ("replace", "fsync", "mkdir", "open")


def killed_at(instant, work):
    """Run work() in a child that kill -9's itself at its n-th system call; None if it ended first.

    Calls counted: renames and fsyncs (before and after), folders made, descriptors opened, and
    every write of a file in Python. Returns the name of the call.
    """
    reader, writer = FORK.Pipe(duplex=False)

    def child():
        count = 0

        def step(name):
            nonlocal count
            if count == instant:
                writer.send(name)
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

        def counted(name, call):
            def run(*arguments, **options):
                step(f"before {name}")
                result = call(*arguments, **options)
                step(f"after {name}")
                return result

            return run

        for name in CALLS:
            setattr(os, name, counted(name, getattr(os, name)))
        Path.unlink = counted("unlink", Path.unlink)
        # The builtin, in these modules.
        artefact_writer.open = atomic_files.open = counted("open a file", open)
        work()
        writer.send(None)

    process = FORK.Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return reader.recv()


def instants(work):
    """Kill work() at one instant after the other until it gets through; yields each."""
    for instant in range(1000):
        call = killed_at(instant, work)
        yield call
        if call is None:
            return
    raise AssertionError("the work never came to its end")


def test_a_file_is_old_or_new(tmp_path):
    path = tmp_path / "value.json"
    atomic_files.write_json(path, "old")
    states, calls = [], set()
    for call in instants(lambda: atomic_files.write_json(path, "new")):
        states.append(json.loads(path.read_text()))
        calls.add(call)
        if call is not None:
            atomic_files.write_json(path, "old")
    assert {"before replace", "after replace", "before fsync", "after open a file"} < calls
    assert states == sorted(states, reverse=True)  # "old" up to the rename, "new" from then on
    assert set(states) == {"old", "new"}


@pytest.fixture
def make_corpus(tmp_path, tokenizer_folder):
    """A function that makes, or goes on making, a small artefact in a folder."""

    def make(folder: Path):
        with lock(folder):
            output = Output(folder, "corpus", "tests", {"length": 5}, {}).begin()
            if output.done:
                return
            files = copy_tokenizer(tokenizer_folder, folder / "tokenizer")
            write_shard(folder / "data_0", [2, 1], [np.array([1, 2, 3])], np.dtype("<u2"))
            with atomic_files.atomic_file(folder / "domain_0.npy") as file:
                np.save(file, np.zeros(2, np.uint8))
            output.finish([*files, "data_0.bin", "data_0.idx", "domain_0.npy"], {"rows": 2})

    return make


def test_an_artefact_is_unfinished_or_whole_and_is_resumed(tmp_path, make_corpus):
    make_corpus(tmp_path / "undisturbed")
    expected = artefact.read_manifest(tmp_path / "undisturbed")
    names = sorted(path.name for path in (tmp_path / "undisturbed").rglob("*"))
    unfinished = finished = 0
    folder = tmp_path / "killed"
    for call in instants(lambda: make_corpus(folder)):
        manifest = artefact.read_manifest(folder) if folder.exists() else None
        if manifest is None:
            unfinished += 1
        else:
            finished += 1
            assert manifest.fingerprint == expected.fingerprint
            artefact.require(folder, "corpus", "", contents=True)
        make_corpus(folder)  # the same command again
        assert artefact.read_manifest(folder).fingerprint == expected.fingerprint, call
        left = sorted(p.name for p in folder.rglob("*") if ".settings.json." not in p.name)
        assert left == names, call
        shutil.rmtree(folder)
    assert unfinished > 40 and finished > 1


def test_killed_again_and_again_it_ends_all_the_same(tmp_path, make_corpus):
    """Each start goes on in the folder that the one before left, one instant further."""
    make_corpus(tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    for _ in instants(lambda: make_corpus(folder)):
        pass
    first, second = (artefact.read_manifest(tmp_path / n) for n in ("undisturbed", "killed"))
    assert first.fingerprint == second.fingerprint
    artefact.require(folder, "corpus", "", contents=True)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    atomic_files.write_json(tmp_path / "value.json", 1)
    with pytest.raises(TypeError):
        atomic_files.write_json(tmp_path / "value.json", {"bad": object()})
    assert (tmp_path / "value.json").read_text() == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["value.json"]


def test_writers_with_equal_process_ids_do_not_share_a_temporary_file(tmp_path):
    """Workers in containers on several machines often all have the same process id."""
    path = tmp_path / "settings.json"
    with (
        atomic_files.atomic_file(path, "w") as first,
        atomic_files.atomic_file(path, "w") as second,
    ):
        first.write("first, which is longer")
        second.write("second")
    assert path.read_text() == "first, which is longer"


def test_copies_are_whole(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 100)
    target.write_bytes(b"old")
    states = set()
    for call in instants(lambda: atomic_files.copy_file(source, target)):
        states.add(target.read_bytes())
        if call is not None:
            target.write_bytes(b"old")
    assert states == {b"old", source.read_bytes()}


@contextlib.contextmanager
def holder(folder):
    """Another process that holds the folder's lock."""
    reader, writer = FORK.Pipe(duplex=False)

    def hold():
        with lock(folder):
            writer.send("held")
            time.sleep(60)

    process = FORK.Process(target=hold)
    process.start()
    assert reader.recv() == "held"
    try:
        yield process
    finally:
        process.kill()
        process.join()


def test_a_second_writer_is_told_host_and_process(tmp_path):
    with holder(tmp_path / "a") as process:
        words = f"process {process.pid} on {socket.gethostname()}"
        with pytest.raises(InputError, match=words) as caught, lock(tmp_path / "a"):
            pass
        assert caught.value.code == 2 and str(tmp_path / "a") in str(caught.value)
    with lock(tmp_path / "a"):  # a killed writer leaves no lock behind
        pass


def test_a_writer_can_wait_for_the_other(tmp_path):
    with holder(tmp_path / "a") as process:
        timer = FORK.Process(target=lambda: (time.sleep(0.5), os.kill(process.pid, 9)))
        timer.start()
        started = time.monotonic()
        with lock(tmp_path / "a", wait=True):
            assert time.monotonic() - started > 0.3
            assert f"process {os.getpid()} on" in (tmp_path / "a/.lock").read_text()
        timer.join()
