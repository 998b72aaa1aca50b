"""What a corpus announces of its rows holds: it is checked when it is opened."""

import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_utils import artefact, shards
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from data_utils.shards import Shard, write_shard
from tests import make, programs
from tools import verify


def plain(folder, *lengths_of, split="data"):
    """A corpus without manifest of shards of rows of these lengths."""
    folder.mkdir(parents=True)
    for number, lengths in enumerate(lengths_of):
        rows = [np.arange(length) for length in lengths]
        write_shard(folder / f"{split}_{number}", lengths, rows, np.dtype("<u2"))
    return folder


@pytest.mark.parametrize("name, most", [("qwen-8", 8), ("qwen", 1025), ("pile-r0.5", 1025)])
def test_without_a_manifest_the_number_is_a_guess_and_called_one(name, most, tmp_path):
    folder = plain(tmp_path / name, [2, 3], [1, most, 4])
    corpus = Corpus(folder)
    assert corpus.max_length == most
    assert "guess" in corpus.announced and str(most) in corpus.announced
    other = plain(tmp_path / "longer" / name, [2, 3], [1, most, most + 1, 6000])
    with pytest.raises(InputError, match=r"row [23] .*data_1\.idx.*guess") as caught:
        Corpus(other)
    assert "MAX_LENGTH=" in str(caught.value) and "--max-length 6000" in str(caught.value)
    assert len(Corpus(other, shards=(0, 1))) == 2  # the part that is read has no such row


@pytest.mark.parametrize("split, more", [("data", 1), ("test", 1), ("test", 5000)])
def test_a_manifest_that_announces_less_is_an_error(split, more, tmp_path, tokenizer_folder):
    rows = [np.arange(1, 5), np.zeros(9 + more, int), np.arange(3)]
    keywords = {"max_length": 9, "split": split, "shard_size": 2}
    folder = make.save_corpus(tmp_path / "bpe-9999", rows, tokenizer_folder, **keywords)
    with pytest.raises(
        ArtefactError, match=rf"row 1 .*{split}_0\.idx.* 9 tokens, found {9 + more}"
    ):
        Corpus(folder)
    assert any(f"{split}_0.idx" in problem for problem in verify.check(folder, None))
    whole = make.save_corpus(tmp_path / "bpe-1", [rows[0], rows[2]], tokenizer_folder, max_length=4)
    assert Corpus(whole).announced == "at most 4 tokens"


def test_no_program_trains_on_longer_rows(tmp_path):
    plain(tmp_path / "qwen-8", [2, 3], [4, 6000])
    (tmp_path / "model.json").write_text("{}")
    flags = programs.flags({"data_dir": "qwen-8", "model_config": "model.json", "save": "run"})
    run = programs.call(tmp_path, "pretrain.train", tmp_path, *flags)
    programs.one_message(
        run, 2, "row 1", "data_1", "at most 8 tokens", "found 6000", "MAX_LENGTH=8"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given, code", [("0", 2), ("5", 2), ("6", 0), ("7", 0), ("-1", 2)])
def test_adoption_with_a_length(given, code, tmp_path, monkeypatch):
    folder = plain(tmp_path / "qwen-5", [2, 6])
    monkeypatch.setattr(sys, "argv", ["verify.py", "--adopt", str(folder), "--max-length", given])
    if code:
        with pytest.raises((InputError, ArtefactError)):
            verify.main()
        assert not (folder / artefact.MANIFEST).exists()
    else:
        verify.main()
        assert Corpus(folder).announced == f"at most {given} tokens"


def edit(folder, row, rows, *, length=None, offset=None):
    """Write other numbers into data_0.idx."""
    index = bytearray((folder / "data_0.idx").read_bytes())
    if length is not None:
        struct.pack_into("<i", index, 34 + 4 * row, length)
    if offset is not None:
        struct.pack_into("<q", index, 34 + 4 * rows + 8 * row, offset)
    (folder / "data_0.idx").write_bytes(index)


@pytest.mark.parametrize(
    "named, change",
    [
        (1, {"row": 1, "length": -3}),
        (1, {"row": 1, "length": -(2**31)}),
        (1, {"row": 1, "length": 0}),
        (2, {"row": 1, "length": 4}),  # the row behind it does not follow
        (1, {"row": 1, "offset": 0}),
        (1, {"row": 1, "offset": 5}),
        (2, {"row": 2, "offset": 2**40}),
        (2, {"row": 2, "offset": -2}),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 1 << 16])
def test_rows_that_are_not_back_to_back(named, change, block, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", block)
    folder = plain(tmp_path / "qwen-8", [2, 3, 1, 2])
    Corpus(folder)
    edit(folder, rows=4, **change)
    with pytest.raises(ArtefactError, match=rf"row {named} .*data_0\.idx") as caught:
        Corpus(folder)
    assert caught.value.code == 3


@pytest.mark.parametrize("shapes, row", [([[0]], 0), ([[2, 0, 3]], 1), ([[2], [3, 3, 0]], 2)])
def test_rows_without_tokens(shapes, row, tmp_path):
    folder = plain(tmp_path / "qwen-8", *shapes)
    found = rf"row {row} .* 0 tokens.*data_{len(shapes) - 1}\.idx"
    with pytest.raises(ArtefactError, match=found) as caught:
        Corpus(folder)
    assert caught.value.code == 3


@given(lengths=st.lists(st.integers(1, 40), max_size=30), block=st.integers(1, 31))
def test_the_longest_row_is_that_of_a_loop(lengths, block, tmp_path_factory):
    folder = plain(tmp_path_factory.mktemp("x") / "qwen-40", lengths)
    shards._longest_row.cache_clear()
    before, shards.ROWS = shards.ROWS, block
    found = Shard(folder / "data_0").longest_row()
    shards.ROWS = before
    longest = max(lengths, default=0)
    assert found == (longest, lengths.index(longest) if lengths else 0)
