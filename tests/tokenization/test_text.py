"""Text in folders: everything is read, or named and refused, or named and passed over on request.

.venv/bin/python -m pytest tests/tokenization/test_text.py
"""

import codecs
import datetime
import decimal
import errno
import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from data_utils.artefact import read_manifest
from data_utils.errors import InputError
from tests import make
from tokenization.text import Documents
from tokenization.text_folder import text_files
from tools import get_pile


def line(text: str) -> bytes:
    return json.dumps({"text": text, "meta": {"pile_set_name": "A"}}).encode() + b"\n"


GOOD = line("one") + line("two")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "the text"
    folder.mkdir()
    (folder / "0.jsonl").write_bytes(GOOD)
    return folder


def dangling(folder):
    (folder / "1.jsonl").symlink_to(folder / "nowhere")


def nested(folder):
    (folder / "more").mkdir()
    (folder / "more/1.jsonl").write_bytes(GOOD)


def a_folder_by_its_name(folder):
    (folder / "1.jsonl").mkdir()
    (folder / "1.jsonl/0.parquet").write_bytes(GOOD)


def linked(folder):
    (folder.parent / "elsewhere").mkdir()
    (folder / "more").mkdir()
    (folder / "more/link").symlink_to(folder.parent / "elsewhere")


def nested_file(name: str):
    def change(folder):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(GOOD)

    return pytest.param(change, name.split("/")[0], id=name)


def no_rows(folder):
    write_parquet(folder / "1.parquet", pyarrow.array([], pyarrow.string()))


def file(name: str, data: bytes = GOOD):
    return pytest.param(lambda folder: (folder / name).write_bytes(data), name, id=name)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (dangling, "1.jsonl"),
        (nested, "more"),
        (a_folder_by_its_name, "1.jsonl"),
        file("part.json.gz", gzip.compress(GOOD)),
        file("1.jsonl.zst", b""),
        file("2.jsonl", b""),
        file("1.parquet", b""),
        (linked, "more"),
        (no_rows, "1.parquet"),
        nested_file("more/deep/part.json.gz"),
        nested_file("more/1.JSONL"),
        nested_file("text.md/1.jsonl"),
        file("1.jsonl.zst", zstandard.compress(b"")),
        file("1.jsonl.gz", gzip.compress(b"\n")),
        file("2.jsonl", b"\n \r\n"),
        file("2.jsonl", codecs.BOM_UTF8),
        file("1.jsonl.gz", GOOD),  # not compressed: found before the work begins
        file("1.JSONL"),
        file("1.jsonl.xz"),
        file("1.jsonl.zst.incomplete"),
        file("1.txt"),
        file("0.jsonl.gz", gzip.compress(GOOD)),  # the same documents a second time?
    ],
)
def test_what_would_be_left_out_is_refused_by_name(folder, change, name):
    change(folder)
    with pytest.raises(InputError) as caught:
        text_files(folder)
    assert caught.value.code == 2 and str(folder / name).split(".jsonl")[0] in str(caught.value)


@pytest.mark.parametrize("change", [nested, lambda f: (f / "part.json.gz").write_bytes(b"x")])
def test_other_files_are_passed_over_by_name_on_request(folder, change, capsys):
    before = text_files(folder)
    change(folder)
    assert text_files(folder, skip_others=True) == before
    assert "passed over" in capsys.readouterr().out


def test_a_dangling_link_is_never_passed_over(folder):
    dangling(folder)
    with pytest.raises(InputError, match="nowhere"):
        text_files(folder, skip_others=True)


def test_descriptions_and_records_beside_text_are_none_but_are_named(folder, capsys):
    names = [".1.jsonl", "LICENSE", "README.md", "dataset_infos.json", "sha256sums.txt"]
    for name in names:
        (folder / name).write_bytes(b"x")
    for name in ("empty", ".cache", "figures"):
        (folder / name).mkdir()
    for name in (".cache/1.jsonl", "figures/README.md", "manifest.json", ".lock"):
        (folder / name).write_bytes(b"x")
    assert [path.name for path in text_files(folder)] == ["0.jsonl"]
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and all(name in printed for name in [*names, ".cache"])
    assert "manifest" not in printed and ".lock" not in printed


@pytest.mark.parametrize("name", ["README.jsonl", "citation.jsonl.gz", "License.jsonl.zst"])
def test_documents_are_read_whatever_their_files_are_called(folder, name):
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(name[name.rindex(".") :], bytes)
    (folder / name).write_bytes(pack(GOOD))
    assert len(list(Documents(text_files(folder)))) == 4


def test_what_lies_beside_train_is_named(folder, capsys):
    (folder / "train").mkdir()
    (folder / "train/1.jsonl").write_bytes(GOOD)
    assert [path.name for path in text_files(folder)] == ["1.jsonl"]
    assert "0.jsonl" in capsys.readouterr().out


def test_the_programs_refuse_too_and_their_fix_works(folder, tmp_path, tokenizer_folder):
    (folder / "part.json.gz").write_bytes(gzip.compress(GOOD))
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer").symlink_to(tokenizer_folder)
    commands = {
        "tools/get_pile.py": ["--from", folder],
        "tools/process_data/tokenize_pile.py": ["--data-dir", folder, "--save", "corpus"]
        + ["--tokenizer-path", "tokenizer", "--max-length", 5],
    }
    for program, flags in commands.items():
        result = make.run(program, base, *flags, check=False)
        assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
        assert "part.json.gz" in result.stderr and "--skip-other-files" in result.stderr
        make.run(program, base, *flags, "--skip-other-files", "true")


def texts(path, **options) -> list[str]:
    return [document["text"] for document in Documents([path], **options)]


def test_blank_lines_marks_and_line_ends_are_passed_over(folder):
    path = folder / "0.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + line("one") + b"\n  \t\r\n" + line("two")[:-1])
    assert texts(path) == ["one", "two"]
    path.write_bytes(line("one").replace(b"\n", b"\r\n") + b"\r\n" + b"{broken\n")
    with pytest.raises(InputError, match="line 3"):
        texts(path)


def test_large_windows_members_and_frames_are_read(folder):
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=1)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = folder / "1.jsonl.zst"
    path.write_bytes(stream.compress(GOOD) + stream.flush() + zstandard.compress(line("three")))
    assert texts(path) == ["one", "two", "three"]
    path = folder / "1.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD) + gzip.compress(line("three")))
    assert texts(path) == ["one", "two", "three"]


def write_parquet(path, column: pyarrow.Array, name: str = "text") -> None:
    table = pyarrow.table({name: column, "number": list(range(len(column)))})
    pyarrow.parquet.write_table(table, path)


def broken_strings() -> pyarrow.Array:
    """Three strings of which the second is not UTF-8, as writers without a check leave them."""
    binary = pyarrow.array([b"one", b"caf\xe9", b"three"], pyarrow.binary())
    return pyarrow.StringArray.from_buffers(3, *binary.buffers()[1:])


def test_parquet_rows_that_are_not_utf8_are_named_or_left_out(folder):
    path = folder / "1.parquet"
    write_parquet(path, broken_strings())
    with pytest.raises(InputError, match=r"line 2 is not UTF-8.*1\.parquet"):
        texts(path, source="A")
    documents = Documents([path], source="A", skip_bad=True)
    assert [document["text"] for document in documents] == ["one", "three"]
    assert [bad[:2] for bad in documents.bad] == [["1.parquet", 2]]


@pytest.mark.parametrize(
    ("column", "name", "parts"),
    [
        (pyarrow.array(["one", None]), "text", ["line 2 has no text"]),
        (pyarrow.array([["one"]]), "text", ["line 1 has no text"]),
        (pyarrow.array([b"one"], pyarrow.binary()), "text", ["line 1 has no text"]),
        (pyarrow.array(["one"]), "content", ["no column text", "content, number"]),
    ],
)
def test_parquet_columns_of_other_kinds_are_errors(folder, column, name, parts):
    write_parquet(folder / "1.parquet", column, name)
    with pytest.raises(InputError) as caught:
        texts(folder / "1.parquet", source="A")
    assert all(part in str(caught.value) for part in [*parts, "1.parquet"])


@pytest.mark.parametrize(
    "kind", [pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), "string")]
)
def test_parquet_strings_of_other_types_are_read(folder, kind):
    write_parquet(folder / "1.parquet", pyarrow.array(["one", "two"]).cast(kind))
    assert texts(folder / "1.parquet", source="A") == ["one", "two"]


def test_a_copy_without_its_bad_lines(folder, tmp_path, capsys):
    (folder / "0.jsonl").write_bytes(line("one") + b"{broken\n" + line("two") + b'{"text": 3}\n')
    base = tmp_path / "base"
    base.mkdir()
    command = [str(base), "--from", str(folder), "--documents-per-file", "1"]
    with pytest.raises(InputError, match="--skip-bad-lines"):
        get_pile.main(command)
    get_pile.main([*command, "--skip-bad-lines", "true"])
    counts = read_manifest(base / "data/pile/train").counts
    assert counts["documents"] == 2 and counts["bad_lines"] == 2
    printed = capsys.readouterr().out
    assert "line 2 of 0.jsonl" in printed and "line 4 of 0.jsonl" in printed


def metas():
    """Values that Parquet and JSON lines hold but orjson does not write."""
    return [decimal.Decimal("1.5"), b"x", datetime.timedelta(1)]


@pytest.mark.parametrize("value", [*metas(), "nested"], ids=str)
def test_meta_that_json_cannot_hold_is_a_bad_line_of_a_copy_alone(folder, tmp_path, value):
    if value == "nested":
        deep = b"[" * 300 + b"]" * 300
        data = b'{"text": "a", "meta": {"pile_set_name": "A", "x": %s}}\n' % deep
        (folder / "1.jsonl").write_bytes(data)
    else:
        meta = {"pile_set_name": "A", "x": value}
        table = pyarrow.table({"text": ["a"], "meta": [meta]})
        pyarrow.parquet.write_table(table, folder / "1.parquet")
    assert len(list(Documents(text_files(folder)))) == 3  # tokenising needs the source alone
    base = tmp_path / "base"
    base.mkdir()
    command = [str(base), "--from", str(folder)]
    with pytest.raises(InputError, match=r"line 1 has meta.*/1\."):
        get_pile.main(command)
    get_pile.main([*command, "--skip-bad-lines", "true"])
    assert read_manifest(base / "data/pile/train").counts["bad_lines"] == 1


def test_a_parquet_file_without_permission_is_not_called_damaged(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    write_parquet(folder / "1.parquet", pyarrow.array(["one"]))
    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", refuse)
    with pytest.raises(PermissionError):
        texts(folder / "1.parquet", source="A")
    with pytest.raises(PermissionError):
        text_files(folder)
