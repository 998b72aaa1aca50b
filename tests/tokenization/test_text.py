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
from tests.tools.test_get_pile import get
from tokenization.text import Documents
from tokenization.text_folder import text_files


def line(text: str) -> bytes:
    return json.dumps({"text": text, "meta": {"pile_set_name": "A"}}).encode() + b"\n"


GOOD = line("one") + line("two")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "the text"
    folder.mkdir()
    (folder / "0.jsonl").write_bytes(GOOD)
    return folder


def put(folder, name: str, data: bytes | str) -> None:
    """A file with these bytes, or a link to this name beside the folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, str):
        path.symlink_to(folder.parent / data)
    else:
        path.write_bytes(data)


def parquet(column: pyarrow.Array, name: str = "text") -> bytes:
    table = pyarrow.table({name: column, "number": list(range(len(column)))})
    stream = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue().to_pybytes()


LEFT_OUT = [
    ("1.jsonl", "nowhere"),
    ("more/1.jsonl", GOOD),
    ("1.jsonl/0.parquet", GOOD),
    ("part.json.gz", gzip.compress(GOOD)),
    ("1.jsonl.zst", b""),
    ("2.jsonl", b""),
    ("more/link", "the text"),
    ("1.parquet", parquet(pyarrow.array([], pyarrow.string()))),
    ("more/deep/part.json.gz", GOOD),
    ("text.md/1.jsonl", GOOD),
    ("1.jsonl.zst", zstandard.compress(b"")),
    ("1.jsonl.gz", gzip.compress(b"\n")),
    ("2.jsonl", codecs.BOM_UTF8),
    ("1.jsonl.gz", GOOD),  # not compressed: found before the work begins
    ("1.JSONL", GOOD),
    ("1.jsonl.xz", GOOD),
    ("1.jsonl.zst.incomplete", GOOD),
    ("0.jsonl.gz", gzip.compress(GOOD)),  # the same documents a second time?
]


@pytest.mark.parametrize(("name", "data"), LEFT_OUT, ids=[name for name, _ in LEFT_OUT])
def test_what_would_be_left_out_is_refused_by_name(folder, name, data):
    put(folder, name, data)
    with pytest.raises(InputError) as caught:
        text_files(folder)
    place = str(folder / name.split("/")[0]).split(".jsonl")[0]
    assert caught.value.code == 2 and place in str(caught.value)


@pytest.mark.parametrize("name", ["more/1.jsonl", "part.json.gz"])
def test_other_files_are_passed_over_by_name_on_request(folder, name, capsys):
    before = text_files(folder)
    put(folder, name, b"x")
    assert text_files(folder, skip_others=True) == before
    assert name.split("/")[0] in capsys.readouterr().out


def test_a_broken_link_is_never_passed_over(folder):
    put(folder, "1.jsonl", "nowhere")
    with pytest.raises(InputError, match=r"1\.jsonl"):
        text_files(folder, skip_others=True)


def test_descriptions_and_records_beside_text_are_none_but_are_named(folder, capsys):
    names = [".1.jsonl", "LICENSE", "README.md", "dataset_infos.json", "sha256sums.txt"]
    (folder / "empty").mkdir()
    for name in [*names, ".cache/1.jsonl", "figures/README.md", "manifest.json", ".lock"]:
        put(folder, name, b"x")
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
    put(folder, "train/1.jsonl", GOOD)
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


def broken_strings() -> pyarrow.Array:
    """Three strings of which the second is not UTF-8, as writers without a check leave them."""
    binary = pyarrow.array([b"one", b"caf\xe9", b"three"], pyarrow.binary())
    return pyarrow.StringArray.from_buffers(3, *binary.buffers()[1:])


def test_parquet_rows_that_are_not_utf8_are_named_or_left_out(folder):
    path = folder / "1.parquet"
    path.write_bytes(parquet(broken_strings()))
    with pytest.raises(InputError, match=r"line 2 is not UTF-8.*1\.parquet"):
        texts(path, source="A")
    one, bad, three = Documents([path], source="A", skip_bad=True)
    assert (one["text"], bad.line[:2], three["text"]) == ("one", ["1.parquet", 2], "three")


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
    put(folder, "1.parquet", parquet(column, name))
    with pytest.raises(InputError) as caught:
        texts(folder / "1.parquet", source="A")
    assert all(part in str(caught.value) for part in [*parts, "1.parquet"])


@pytest.mark.parametrize(
    "kind", [pyarrow.large_string(), pyarrow.dictionary(pyarrow.int8(), "string")]
)
def test_parquet_strings_of_other_types_are_read(folder, kind):
    put(folder, "1.parquet", parquet(pyarrow.array(["one", "two"]).cast(kind)))
    assert texts(folder / "1.parquet", source="A") == ["one", "two"]


def test_a_copy_without_its_bad_lines(folder, tmp_path, capsys):
    (folder / "0.jsonl").write_bytes(line("one") + b"{broken\n" + line("two") + b'{"text": 3}\n')
    command = tmp_path / "base", "--from", folder, "--documents-per-file", 1
    with pytest.raises(InputError, match="--skip-bad-lines"):
        get(*command)
    counts = read_manifest(get(*command, "--skip-bad-lines", "true")).counts
    assert counts["documents"] == 2 and counts["bad_lines"] == 2
    printed = capsys.readouterr().out
    assert "line 2 of 0.jsonl" in printed and "line 4 of 0.jsonl" in printed


# Values that Parquet and JSON lines hold but orjson does not write.
@pytest.mark.parametrize(
    "value", [decimal.Decimal("1.5"), b"x", datetime.timedelta(1), "nested"], ids=str
)
def test_meta_that_json_cannot_hold_is_a_bad_line_of_a_copy_alone(folder, tmp_path, value):
    if value == "nested":
        deep = b"[" * 300 + b"]" * 300
        data = b'{"text": "a", "meta": {"pile_set_name": "A", "x": %s}}\n' % deep
        (folder / "1.jsonl").write_bytes(data)
    else:
        meta = {"pile_set_name": "A", "x": value}
        table = pyarrow.table({"text": ["a"], "meta": [meta]})
        pyarrow.parquet.write_table(table, folder / "1.parquet")
    assert len(list(Documents(text_files(folder)))) == 3  # tokenizing needs the source alone
    command = tmp_path / "base", "--from", folder
    with pytest.raises(InputError, match=r"line 1 has meta.*/1\."):
        get(*command)
    assert read_manifest(get(*command, "--skip-bad-lines", "true")).counts["bad_lines"] == 1


def test_a_parquet_file_without_permission_is_not_called_damaged(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    put(folder, "1.parquet", parquet(pyarrow.array(["one"])))
    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", refuse)
    with pytest.raises(PermissionError):
        texts(folder / "1.parquet", source="A")
    with pytest.raises(PermissionError):
        text_files(folder)
