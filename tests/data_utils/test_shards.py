"""Shard files byte for byte (Megatron-LM reads them in test_megatron.py), and broken ones."""

import struct

import numpy as np
import pytest

from data_utils.errors import ArtefactError
from data_utils.shards import Shard, find_shards, token_type, write_shard

ROWS = [[1, 2, 3], [4], [65_000, 5, 6, 7]]
INT32, UINT16 = np.dtype("<i4"), np.dtype("<u2")


def write(prefix, rows=ROWS, dtype=UINT16):
    write_shard(prefix, [len(row) for row in rows], map(np.array, rows), dtype)


def index_bytes(rows, code, size, entries):
    """An .idx packed by hand."""
    lengths = [len(row) for row in rows]
    offsets = [size * sum(lengths[:i]) for i in range(len(rows))]
    packed = b"MMIDIDX\0\0" + struct.pack("<Q", 1) + struct.pack("<B", code)
    packed += struct.pack("<QQ", len(rows), len(entries))
    packed += struct.pack(f"<{len(rows)}i", *lengths) + struct.pack(f"<{len(rows)}q", *offsets)
    return packed + struct.pack(f"<{len(entries)}q", *entries)


def test_the_type_of_a_token_follows_the_vocabulary():
    assert token_type(65_499) == UINT16
    assert token_type(65_500) == INT32


@pytest.mark.parametrize("dtype, code, letter", [(UINT16, 8, "H"), (INT32, 4, "i")])
def test_bytes_are_those_of_the_format(tmp_path, dtype, code, letter):
    write(tmp_path / "data_0", dtype=dtype)
    flat = [token for row in ROWS for token in row]
    assert (tmp_path / "data_0.bin").read_bytes() == struct.pack(f"<{len(flat)}{letter}", *flat)
    expected = index_bytes(ROWS, code, dtype.itemsize, [0, 1, 2, 3])
    assert (tmp_path / "data_0.idx").read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data_0.bin", "data_0.idx"]


@pytest.mark.parametrize("entries", [[0], [0, 1, 2, 3], [0, 3]])
def test_both_styles_of_document_entries_are_read(tmp_path, entries):
    """The original MiniPLM writes [0]; Megatron's tools write 0..n or the documents' ends."""
    prefix = tmp_path / "data_0"
    write(prefix)
    prefix.with_suffix(".idx").write_bytes(index_bytes(ROWS, 8, 2, entries))
    shard = Shard(prefix)
    assert len(shard) == 3 and shard.lengths.tolist() == [3, 1, 4]
    assert shard.offsets.tolist() == [0, 6, 8] and shard.tokens.tolist() == sum(ROWS, [])


def test_lengths_and_tokens_must_agree(tmp_path):
    with pytest.raises(AssertionError):
        write_shard(tmp_path / "data_0", [2], [np.array([1, 2, 3])], UINT16)


def test_an_empty_shard_is_read(tmp_path):
    write(tmp_path / "data_0", rows=[])
    shard = Shard(tmp_path / "data_0")
    assert len(shard) == 0 and len(shard.tokens) == 0


def poke(path, at, data):
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def cut(path, count):
    path.write_bytes(path.read_bytes()[:count])


DAMAGES = {
    "short bin": ("bin", lambda p: cut(p, 12), "16 bytes, found 12"),
    "long bin": ("bin", lambda p: p.write_bytes(p.read_bytes() + b"\0\0"), "16 bytes, found 18"),
    "empty bin": ("bin", lambda p: p.write_bytes(b""), "16 bytes, found 0"),
    "no bin": ("bin", lambda p: p.unlink(), "missing"),
    "no idx": ("idx", lambda p: p.unlink(), "missing"),
    "empty idx": ("idx", lambda p: p.write_bytes(b""), "MMIDIDX"),
    "cut header": ("idx", lambda p: cut(p, 33), "MMIDIDX"),
    "bad magic": ("idx", lambda p: poke(p, 0, b"X"), "MMIDIDX"),
    "version": ("idx", lambda p: poke(p, 9, b"\x02"), "version 2, type 8"),
    "type": ("idx", lambda p: poke(p, 17, b"\x05"), "version 1, type 5"),
    "short idx": ("idx", lambda p: cut(p, 100), "expected 102 bytes, found 100"),
    "more rows": ("idx", lambda p: poke(p, 18, b"\x04"), "expected 114 bytes, found 102"),
    "fewer entries": ("idx", lambda p: poke(p, 26, b"\x01"), "expected 78 bytes, found 102"),
    "last length": (
        "bin",
        lambda p: poke(p.with_suffix(".idx"), 42, b"\x05"),
        "18 bytes, found 16",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_disagreement_is_an_error_that_names_the_file(tmp_path, damage):
    named, harm, message = DAMAGES[damage]
    write(tmp_path / "data_0")
    path = tmp_path / f"data_0.{named}"
    harm(path)
    with pytest.raises(ArtefactError, match=message) as caught:
        Shard(tmp_path / "data_0")
    assert caught.value.code == 3
    assert str(path) in str(caught.value) and "Fix: " in str(caught.value)


def test_shards_are_found_by_number(tmp_path):
    for name in (*(f"data_{number}" for number in range(11)), "test_0"):
        write(tmp_path / name)
    (tmp_path / "data_1_old.bin").write_bytes(b"x")
    assert [p.name for p in find_shards(tmp_path, "data")] == [f"data_{i}" for i in range(11)]
    assert find_shards(tmp_path, "test") == [tmp_path / "test_0"]
    for suffix in (".idx", ".bin"):
        (tmp_path / "data_3").with_suffix(suffix).unlink()
    with pytest.raises(ArtefactError, match=r"data_3\.idx") as caught:
        find_shards(tmp_path, "data")
    assert caught.value.code == 3


def test_an_empty_bin_without_an_index_is_no_shard(tmp_path):
    """The original leaves one behind every full shard; one with tokens lacks its index."""
    write(tmp_path / "data_0")
    (tmp_path / "data_1.bin").write_bytes(b"")
    assert [prefix.name for prefix in find_shards(tmp_path, "data")] == ["data_0"]
    (tmp_path / "data_1.bin").write_bytes(b"\1\0")
    with pytest.raises(ArtefactError, match=r"data_1\.idx"):
        Shard(find_shards(tmp_path, "data")[1])
