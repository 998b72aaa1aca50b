"""File systems that lack a call, and locales of another encoding.

.venv/bin/python -m pytest tests/data_utils/test_platforms.py
"""

import contextlib
import errno
import fcntl
import io
import json
import os
import subprocess
import sys

import pytest

from cluster import failure_record
from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output, lock
from data_utils.blocks import Blocks
from data_utils.errors import EnvironmentFault, from_os_error
from data_utils.program import CODE_ROOT, show_anything
from tests import make

LACKING = [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL]


def lacks(patch: pytest.MonkeyPatch, owner: object, name: str, number: int) -> None:
    """Let owner.name fail as on a file system without it."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    patch.setattr(owner, name, fail)


@pytest.mark.parametrize("number", [errno.ENOLCK, *LACKING])
def test_no_stage_begins_without_locks(number, tmp_path, monkeypatch):
    """Lustre mounted without them, some NFS: known before any work, in one line."""
    lacks(monkeypatch, fcntl, "flock", number)
    begun = []
    with pytest.raises(EnvironmentFault) as caught:
        Output(tmp_path / "a", "corpus", "tests", {}, {}).make(lambda: begun.append(1))
    assert caught.value.code == 4 and str(tmp_path / "a") in str(caught.value) and not begun
    with pytest.raises(EnvironmentFault), lock(tmp_path / "a", wait=True):
        pass


def test_a_lock_that_fails_otherwise_is_no_missing_one(tmp_path, monkeypatch):
    lacks(monkeypatch, fcntl, "flock", errno.EBADF)
    with pytest.raises(OSError, match="descriptor"), lock(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMLINK, *LACKING])
def test_without_hard_links_the_first_one_stays_too(number, tmp_path, monkeypatch):
    """exFAT, many of FUSE's: a block, a record of a failure."""
    lacks(monkeypatch, os, "link", number)
    Blocks(tmp_path, 1).require_place()
    assert not list(tmp_path.iterdir())
    first, late = Blocks(tmp_path, 1), Blocks(tmp_path, 1)
    assert first.publish(0, lambda path: path.write_text("first"))
    assert not late.publish(0, lambda path: path.write_text("late"))
    assert first.path(0).read_text() == "first" and len(list(tmp_path.iterdir())) == 1
    assert failure_record.write_record(tmp_path / "record", 2, "first")
    assert failure_record.write_record(tmp_path / "record", 3, "late")
    assert failure_record.failure(tmp_path / "record") == {"code": 2, "message": "first"}
    assert len(list(tmp_path.iterdir())) == 2


def test_without_any_way_to_place_a_file_it_is_told_beforehand(tmp_path, monkeypatch):
    lacks(monkeypatch, os, "link", errno.EPERM)
    monkeypatch.setattr(atomic_files, "rename_no_replace", lambda *_: errno.EINVAL)
    with pytest.raises(EnvironmentFault) as caught:
        Blocks(tmp_path, 1).require_place()
    assert str(tmp_path) in str(caught.value) and not list(tmp_path.iterdir())
    assert not failure_record.write_record(tmp_path / "record", 2, "it shows its own message")
    assert not list(tmp_path.iterdir())


def test_a_link_that_is_refused_otherwise_is_an_error(tmp_path, monkeypatch):
    lacks(monkeypatch, os, "link", errno.EACCES)
    (tmp_path / "a").write_text("a")
    with pytest.raises(PermissionError):
        atomic_files.place(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("number", LACKING)
def test_what_cannot_be_synced_is_written_all_the_same(number, tmp_path, monkeypatch):
    """A file, a folder, a checkpoint's tree, a block without permissions."""
    from pretrain.checkpoints import sync_tree

    lacks(monkeypatch, os, "fsync", number)
    lacks(monkeypatch, os, "fchmod", errno.EPERM)
    atomic_files.write_json(tmp_path / "value.json", 1)
    assert json.loads((tmp_path / "value.json").read_text()) == 1
    sync_tree(tmp_path)
    assert Blocks(tmp_path, 1).publish(0, lambda path: path.write_text("a"))


@pytest.mark.parametrize("name", ["EOPNOTSUPP", "ENOSYS", "ENOLCK", "EXDEV", "ENODEV", "ESTALE"])
def test_any_other_call_is_one_message_of_the_environment(name):
    number = getattr(errno, name)
    fault = from_os_error(OSError(number, os.strerror(number), "some/file"))
    assert fault.code == 4 and "some/file" in str(fault) and "Fix: " in str(fault)


# Python takes the C locale for UTF-8 unless it is told not to, which no test machine needs a
# locale of ISO 8859-1 for.
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = {
    "plain C": PLAIN,
    "a Latin-1 terminal": {"PYTHONIOENCODING": "latin-1"},
    "both": {**PLAIN, "PYTHONIOENCODING": "ascii"},
}
NAMES = ("Bücher", "日本語")  # of sources: one that Latin-1 has, one that it has not


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder):
    base = tmp_path_factory.mktemp("größe")
    make.write_text(base / "text", [*make.documents(9), "é日本 " * 40], NAMES)
    (base / "tokenizer").symlink_to(tokenizer_folder)
    return base


def tokenize(base, save: str, **environment: str) -> dict:
    """The manifest of a corpus made in this environment."""
    flags = ["--data-dir", "text", "--save", save, "--tokenizer-path", "tokenizer"]
    program = "tools/process_data/tokenize_pile.py"
    make.run(program, base, *flags, "--max-length", 33, **environment)
    return artefact.read_manifest(base / save)


def test_the_locale_makes_no_difference(base):
    expected = tokenize(base, "expected")
    assert set(NAMES) <= set(expected.counts["domains"])
    for number, environment in enumerate(LOCALES.values()):
        made = tokenize(base, f"corpus {number}", **environment)
        assert made.fingerprint == expected.fingerprint
        assert made.made_by["settings"] == {
            **expected.made_by["settings"],
            "save": f"corpus {number}",
        }
        shown = make.run("tools/verify.py", base / "expected", **environment)
        assert "are whole" in shown.stdout


@pytest.mark.parametrize("name", LOCALES)
def test_an_error_names_a_path_of_any_letters(name, tmp_path):
    shown = make.run("tools/verify.py", tmp_path / "日本", check=False, **LOCALES[name])
    assert shown.returncode == 2 and shown.stderr.count("ERROR") == 1
    assert "Traceback" not in shown.stderr


def test_a_path_that_is_no_text(tmp_path):
    """Bytes of another encoding stand in a JSON file as an escape, and can be read again."""
    path = os.fsdecode(b"gr\xf6\xdfe")
    atomic_files.write_json(tmp_path / "settings.json", {"base_path": path})
    assert atomic_files.read_json(tmp_path / "settings.json", "") == {"base_path": path}


def test_a_file_is_utf_8_in_a_process_of_another_encoding(tmp_path):
    """Also without the start that programs have: as a library."""
    code = (
        "import sys; from pathlib import Path; from data_utils import atomic_files\n"
        "atomic_files.write_json(Path(sys.argv[1]), 'é日本'); "
        "assert atomic_files.read_json(Path(sys.argv[1]), '') == 'é日本'"
    ).encode("unicode_escape")
    command = [sys.executable, "-c", f"exec({code!r}.decode('unicode_escape'))"]
    command.append(tmp_path / "value.json")
    subprocess.run(command, check=True, cwd=CODE_ROOT, env={**os.environ, **PLAIN})
    assert json.loads((tmp_path / "value.json").read_bytes()) == "é日本"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_any_text_can_be_shown(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(io.StringIO()):
        show_anything()
        print("é日本\udcf6", flush=True)
    assert stream.buffer.getvalue()
