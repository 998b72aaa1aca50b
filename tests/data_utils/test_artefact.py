"""Artefact folders: fingerprints, manifests, and what is done, resumed or refused."""

import errno
import json
import os
import shutil

import pytest

from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output, lock
from data_utils.errors import ArtefactError, InputError, from_os_error

CONTENT = {"length": 65, "flag": True, "none": None}


def make(folder, *, content=CONTENT, data=b"12", inputs=None, counts=None, kind="corpus", **more):
    """A finished artefact of one file."""
    output = Output(folder, kind, "tests/x.py", dict(content), {}, inputs or {}).begin()
    (folder / "data_0.bin").write_bytes(data)
    output.finish(["data_0.bin"], counts or {"rows": 2}, **more)
    return output


def fingerprint_of(folder):
    return artefact.read_manifest(folder).fingerprint


def an_input(folder, fingerprint="f1"):
    return {"text": (folder / "text", {"kind": "text", "fingerprint": fingerprint})}


def test_fingerprint_is_independent_of_place_time_and_program(tmp_path, monkeypatch):
    make(tmp_path / "a", inputs=an_input(tmp_path))
    monkeypatch.setattr("time.strftime", lambda *_: "2031-01-01T00:00:00Z")
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    monkeypatch.setattr("data_utils.artefact_writer.versions", lambda: {"python": "4"})
    folder = tmp_path / "b" / "c"
    inputs = an_input(tmp_path / "moved")
    output = Output(folder, "corpus", "tests/y.py", CONTENT, {"w": 9}, inputs).begin()
    (folder / "data_0.bin").write_bytes(b"12")
    output.finish(["data_0.bin"], {"rows": 2}, {"took": 3})
    assert fingerprint_of(folder) == fingerprint_of(tmp_path / "a")
    first, second = (artefact.read_manifest(f) for f in (tmp_path / "a", folder))
    assert first.made_by["time"] != second.made_by["time"]


def test_fingerprint_depends_on_all_that_decides_the_content(tmp_path):
    variants = [
        {},
        {"content": {**CONTENT, "length": 66}},
        {"content": {**CONTENT, "more": None}},
        {"data": b"13"},
        {"data": b"123"},
        {"inputs": an_input(tmp_path)},
        {"inputs": an_input(tmp_path, "f2")},
        {"counts": {"rows": 3}},
        {"kind": "scores"},
    ]
    found = set()
    for number, variant in enumerate(variants):
        make(tmp_path / str(number), **variant)
        found.add(fingerprint_of(tmp_path / str(number)))
    folder = tmp_path / "name"
    output = Output(folder, "corpus", "tests", CONTENT, {}).begin()
    (folder / "data_1.bin").write_bytes(b"12")
    found.add(output.finish(["data_1.bin"], {"rows": 2}).fingerprint)
    assert len(found) == len(variants) + 1


def test_the_manifest_says_what_it_is(tmp_path):
    output = Output(
        tmp_path / "a", "corpus", "tests/x.py", CONTENT, {"seed": 3}, an_input(tmp_path)
    ).begin()
    (tmp_path / "a/data_0.bin").write_bytes(b"12")
    manifest = output.finish(["data_0.bin"], {"rows": 2}, {"note": 1})
    assert manifest == artefact.read_manifest(tmp_path / "a")
    written = json.loads((tmp_path / "a/manifest.json").read_text())
    assert (written["fingerprint"], written["report"]) == (manifest.fingerprint, {"note": 1})
    assert manifest.files == [
        {
            "name": "data_0.bin",
            "size": 2,
            "sha256": "6b51d431df5d7f141cbececcf79edf3dd861c3b4069f0b11661a3eefacbba918",
        }
    ]
    assert manifest.inputs == {"text": {"kind": "text", "fingerprint": "f1", "path": "../text"}}
    assert (manifest.kind, manifest.format, manifest.counts) == ("corpus", 1, {"rows": 2})
    assert manifest.made_by["program"] == "tests/x.py"
    assert manifest.made_by["settings"] == {"seed": 3}
    assert {"python", "torch", "transformers", "numpy"} <= manifest.made_by["versions"].keys()
    assert str(tmp_path) not in json.dumps(written)  # paths are relative


def test_a_copy_is_the_same_artefact(tmp_path):
    make(tmp_path / "a")
    copy = shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "b")
    for contents in (False, True):
        manifest = artefact.require(copy, "corpus", "fix", contents=contents)
        assert manifest.fingerprint == fingerprint_of(tmp_path / "a")
    assert artefact.identity(copy, "corpus", "") == artefact.identity(tmp_path / "a", "corpus", "")


def test_done_is_found_and_left_alone(tmp_path):
    def files():
        paths = (tmp_path / "a").iterdir()
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    make(tmp_path / "a")
    before = files()
    again = Output(tmp_path / "a", "corpus", "tests", dict(CONTENT), {"other": 1}).begin()
    assert again.done and files() == before


def test_unfinished_is_resumed_with_the_same_settings_only(tmp_path):
    def begin(content=CONTENT, inputs=None):
        return Output(tmp_path / "a", "corpus", "tests", content, {}, inputs or {}).begin()

    begin(inputs=an_input(tmp_path))
    (tmp_path / "a/data_0.bin").write_bytes(b"half")
    assert not begin(inputs=an_input(tmp_path / "moved")).done
    with pytest.raises(
        InputError, match="begun with another length in .*: expected length 65, found length 99"
    ):
        begin({**CONTENT, "length": 99}, an_input(tmp_path))
    with pytest.raises(InputError, match="made from another text"):
        begin(inputs=an_input(tmp_path, "f2"))
    with pytest.raises(InputError, match="made from another text"):
        begin()
    assert (tmp_path / "a/data_0.bin").read_bytes() == b"half"


def test_allowed_changes_are_recorded_and_no_others(tmp_path):
    def begin(length, flag, name="f1", **options):
        content = {**CONTENT, "length": length, "flag": flag}
        inputs = an_input(tmp_path, name)
        return Output(tmp_path / "a", "corpus", "t", content, {}, inputs, **options)

    begin(65, True).begin()
    with pytest.raises(InputError, match="another flag, length .* length 65, found .* length 99"):
        begin(99, False).begin()
    with pytest.raises(InputError, match="another flag in"):
        begin(99, False, allowed=frozenset(["length"])).begin()
    with pytest.raises(InputError, match="ALLOW_CHANGE=length,text"):
        begin(99, True, "f2", allowed=frozenset()).begin()
    begin(99, True, allowed=frozenset(["length"])).begin()
    with pytest.raises(InputError, match="expected length 99, found length 65"):
        begin(65, True).begin()
    output = begin(99, True, "f2", allowed=frozenset(["text", "flag"])).begin()
    changes = output.finish([], {}).made_by["changes"]
    assert [(c["name"], c["from"], c["to"]) for c in changes] == [
        ("length", 65, 99),
        ("text", "f1", "f2"),
    ]
    with pytest.raises(InputError) as refused:  # what is finished is what it is
        begin(65, True, "f2", allowed=frozenset(["length"])).begin()
    assert "ALLOW_CHANGE" not in str(refused.value)


def test_finished_is_refused_to_other_settings_and_inputs(tmp_path):
    make(tmp_path / "a", inputs=an_input(tmp_path))
    for content, inputs, word in (
        ({**CONTENT, "flag": False}, an_input(tmp_path), "flag"),
        ({**CONTENT, "new": 1}, an_input(tmp_path), "new"),
        (CONTENT, an_input(tmp_path, "f2"), "text"),
    ):
        with pytest.raises(InputError, match=f"another {word}") as caught:
            Output(tmp_path / "a", "corpus", "tests", content, {}, inputs).begin()
        assert caught.value.code == 2


def test_what_others_made_is_never_touched(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="files that this program did not make"):
        Output(tmp_path / "a", "corpus", "tests", CONTENT, {}).begin()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["notes.txt"]


def test_damage_is_an_error_that_names_the_file(tmp_path):
    make(tmp_path / "a")
    path = tmp_path / "a/data_0.bin"
    for data, contents, message in (
        (b"1", False, "wrong size in .*data_0.bin: expected 2, found 1"),
        (b"99", True, "checksum does not hold in .*data_0.bin"),
    ):
        path.write_bytes(data)
        with pytest.raises(ArtefactError, match=message):
            artefact.require(tmp_path / "a", "corpus", "fix", contents=contents)
    artefact.require(tmp_path / "a", "corpus", "fix")  # sizes alone hold
    path.unlink()
    with pytest.raises(ArtefactError, match="missing in .*data_0.bin"):
        artefact.require(tmp_path / "a", "corpus", "fix")
    with pytest.raises(ArtefactError, match="missing in .*data_0.bin"):
        Output(tmp_path / "a", "corpus", "tests", dict(CONTENT), {}).begin()


DAMAGES = {
    "cut": lambda text: text[:100],
    "empty": lambda text: "",
    "list": lambda text: "[]",
    "inputs": lambda text: text.replace('"inputs": {}', '"inputs": []'),
    "no files": lambda text: text.replace('"files"', '"flies"'),
    "count": lambda text: text.replace('"rows": 2', '"rows": 3'),
    "setting": lambda text: text.replace('"length": 65', '"length": 64'),
    "fingerprint": lambda text: text.replace('"fingerprint": "', '"fingerprint": "0'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_an_error(tmp_path, damage):
    make(tmp_path / "a")
    path = tmp_path / "a/manifest.json"
    harmed = DAMAGES[damage](path.read_text())
    assert harmed != path.read_text()
    path.write_text(harmed)
    for use in (
        lambda: artefact.require(tmp_path / "a", "corpus", "fix"),
        lambda: Output(tmp_path / "a", "corpus", "tests", CONTENT, {}).begin(),
    ):
        with pytest.raises(ArtefactError, match="manifest is damaged in .*manifest.json"):
            use()


def test_what_a_model_was_trained_on(tmp_path):
    counts = {"step": 1, "trained_on": {"part": [0, 2], "whole": [3, 5], "selected from": None}}
    make(tmp_path / "a", kind="model", counts=counts)
    manifest = artefact.read_manifest(tmp_path / "a")
    assert [manifest.trained_on(name) for name in ("part", "whole")] == [(0, 2), (3, 5)]
    assert manifest.trained_on("selected from")[0] == 0 and manifest.trained_on("other") is None
    make(tmp_path / "old", kind="model", counts={"step": 1})
    with pytest.raises(ArtefactError, match="earlier version .*old"):
        artefact.read_manifest(tmp_path / "old").trained_on("part")


def test_damaged_settings_are_an_error(tmp_path):
    output = Output(tmp_path / "a", "corpus", "tests", CONTENT, {}).begin()
    for text in ("", "[]", '{"content": {}}', "{}"):
        (tmp_path / "a/settings.json").write_text(text)
        with pytest.raises(ArtefactError, match="damaged in .*settings.json"):
            output.begin()


def test_unfinished_wrong_kind_and_absent_inputs(tmp_path):
    with pytest.raises(InputError, match="there is no corpus in .*none. Fix: make it"):
        artefact.require(tmp_path / "none", "corpus", "make it")
    Output(tmp_path / "a", "corpus", "tests", CONTENT, {}).begin()
    with pytest.raises(ArtefactError, match="the corpus is unfinished"):
        artefact.require(tmp_path / "a", "corpus", "fix")
    make(tmp_path / "b")
    with pytest.raises(InputError, match="expected scores, found corpus"):
        artefact.require(tmp_path / "b", "scores", "fix")
    (tmp_path / "theirs").mkdir()
    assert artefact.require(tmp_path / "theirs", "corpus", "fix") is None


def test_identity_without_a_manifest_follows_the_files(tmp_path):
    def identity(name):
        return artefact.identity(tmp_path / name, "text", "fix")["fingerprint"]

    for name, data in (("a", b"12"), ("b", b"12"), ("c", b"13")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jsonl").write_bytes(data)
    with lock(tmp_path / "b"):
        assert identity("a") == identity("b") != identity("c")
    (tmp_path / "b/0.jsonl").rename(tmp_path / "b/1.jsonl")
    assert identity("a") != identity("b")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk_names_the_file_and_keeps_the_old_one(number, tmp_path, monkeypatch):
    path = tmp_path / "value.json"
    atomic_files.write_json(path, "old")

    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        atomic_files.write_json(path, "new")
    fault = from_os_error(caught.value)
    assert fault.code == 4 and f"{os.strerror(number)} in {path}" in str(fault)
    assert path.read_text() == '"old"\n' and list(tmp_path.iterdir()) == [path]
