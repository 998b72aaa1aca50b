"""The corpus reader against a loop over rows."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus, shard_range
from data_utils.errors import ArtefactError, InputError
from data_utils.shards import Shard, write_shard
from tests import make
from tests.data_utils.test_row_lengths import edit

SIZES = (7, 1, 0, 5, 9)  # rows per shard


@pytest.fixture(scope="module")
def rows():
    """Rows of random lengths; two have one token."""
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, 600, generator.integers(1, 9)) for _ in range(sum(SIZES))]
    rows[3] = rows[12] = rows[0][:1]
    return rows


def write_plain(folder, rows, sizes=SIZES):
    """Shards of these sizes without a manifest; row i has domain i mod 3."""
    folder.mkdir(parents=True)
    starts = np.cumsum([0, *sizes])
    for shard, start in enumerate(starts[:-1]):
        part = rows[start : starts[shard + 1]]
        write_shard(folder / f"data_{shard}", [len(r) for r in part], part, np.dtype("<u2"))
        numbers = np.arange(start, start + len(part))
        np.save(folder / f"domain_{shard}.npy", (numbers % 3).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rows):
    return write_plain(tmp_path_factory.mktemp("corpus") / "qwen-65", rows)


def padded(rows, pad):
    """The obvious batch: one row at a time."""
    lengths = [len(row) for row in rows]
    tokens = np.full((len(rows), max(lengths, default=0)), pad)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    return tokens, np.array(lengths, np.int64)


@settings(max_examples=300)
@given(data=st.data())
def test_batch_lengths_and_sides_equal_a_loop(folder, rows, data):
    corpus = Corpus(folder)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12))  # unsorted, repeated
    at = np.array(chosen, np.int64)
    tokens, lengths = corpus.batch(at, 599)
    expected, expected_lengths = padded([rows[i] for i in chosen], 599)
    assert tokens.dtype == lengths.dtype == np.int64
    assert np.array_equal(tokens, expected) and np.array_equal(lengths, expected_lengths)
    assert np.array_equal(corpus.lengths(at), expected_lengths)
    assert np.array_equal(corpus.side("domain", at), at % 3)
    assert [s.tolist() for s in corpus.sequences(at)] == [rows[i].tolist() for i in chosen]


def test_single_rows_and_their_places(folder, rows):
    corpus = Corpus(folder)
    assert len(corpus) == len(rows) == 22 and corpus.dtype == np.dtype("<u2")
    for number, row in enumerate(rows):
        assert corpus.row(number).tolist() == row.tolist()
    shard, inside = corpus.locate(8)
    assert (shard.prefix.name, inside) == ("data_3", 0)  # shard 2 is empty
    for beyond in (-1, len(rows)):
        with pytest.raises(IndexError):
            corpus.batch(np.array([0, beyond]), 0)


def test_a_range_of_shards(folder, rows):
    part = Corpus(folder, shards=(3, 99))
    assert (part.first_shard, part.last_shard, part.all_shards) == (3, 5, 5)
    assert len(part) == 14 and part.row(0).tolist() == rows[8].tolist()
    assert part.first_row == 8 and Corpus(folder).first_row == 0
    assert part.side("domain", np.arange(14)).tolist() == [i % 3 for i in range(8, 22)]
    assert part.batch(np.array([13]), 0)[0][0].tolist() == rows[21].tolist()
    for beyond in ((5, 9), (3, 3)):
        with pytest.raises(InputError, match="a range inside 0:5"):
            Corpus(folder, shards=beyond)


def test_a_corpus_without_manifest_is_read_as_it_is(folder):
    corpus = Corpus(folder)
    assert corpus.manifest is None and corpus.domains == []
    assert corpus.max_length == 65  # from the folder's name
    assert corpus.tokenizer_folder is None
    assert "row 1 of data_3" in corpus.describe(9) and "tokens [" in corpus.describe(9)
    assert corpus.side("source_row", np.arange(3)) is None


def test_max_length_from_manifest_name_or_default(tmp_path, rows, tokenizer_folder):
    assert Corpus(write_plain(tmp_path / "llama-3.1", rows)).max_length == 1025
    assert Corpus(write_plain(tmp_path / "llama3.1-257", rows)).max_length == 257
    made = make.save_corpus(tmp_path / "bpe-257", rows, tokenizer_folder, max_length=33)
    corpus = Corpus(made)
    assert corpus.max_length == 33 and corpus.domains == ["A", "B"]
    assert corpus.tokenizer_folder == made / "tokenizer"
    shown = corpus.describe(0)
    assert shown.startswith(f"row 0 of data_0 in {made} (") and "tokens [" not in shown


def test_identity_of_a_corpus_without_manifest(tmp_path, folder, rows):
    twin = shutil.copytree(folder, tmp_path / "elsewhere")
    assert Corpus(twin).identity == Corpus(folder).identity
    large = twin / "large.bin"
    large.write_bytes(b"1" * (2 << 20))
    before = Corpus(twin).identity
    large.write_bytes(b"1" * (2 << 20) + b"2")
    assert Corpus(twin).identity != before
    large.write_bytes(b"1" * ((2 << 20) - 1) + b"2")
    assert Corpus(twin).identity != before
    swapped = [rows[1], rows[0], *rows[2:]]
    other = write_plain(tmp_path / "qwen-65", swapped)
    assert Corpus(other).identity != Corpus(folder).identity


@pytest.mark.parametrize(
    "change",
    [
        *({"offset": offset} for offset in (-2, 1, 10**6, -(2**63), 2**63 - 2)),
        *({"length": length} for length in (-1, -(2**31), 10**6, 2**31 - 1)),
    ],
)
def test_a_row_out_of_range_is_named(tmp_path, rows, change):
    """When the corpus is opened, and where rows are read all the same."""
    folder = write_plain(tmp_path / "qwen-65", rows)
    edit(folder, 2, SIZES[0], **change)
    with pytest.raises(ArtefactError, match=r"row [23] .* in .*data_0\.idx") as caught:
        Corpus(folder)
    assert caught.value.code == 3
    shard = Shard(folder / "data_0")
    shard.spans(np.array([0, 1, 4]))
    with pytest.raises(ArtefactError, match=r"row 2 .* in .*data_0\.idx"):
        shard.spans(np.array([4, 2]))


def test_a_corpus_as_the_original_leaves_it(tmp_path, rows):
    """One document entry, [0], a shard, and an empty .bin without .idx behind a full shard."""
    folder = write_plain(tmp_path / "qwen-65", rows)
    for shard, n in enumerate(SIZES):
        (folder / f"domain_{shard}.npy").unlink()
        index = folder / f"data_{shard}.idx"
        content = bytearray(index.read_bytes()[: 34 + 12 * n])
        content[26:34] = (1).to_bytes(8, "little")
        index.write_bytes(content + bytes(8))
    (folder / f"data_{len(SIZES)}.bin").touch()
    corpus = Corpus(folder)
    tokens, lengths = corpus.batch(np.arange(len(rows)), 599)
    expected, expected_lengths = padded(rows, 599)
    assert np.array_equal(tokens, expected) and np.array_equal(lengths, expected_lengths)
    assert corpus.side("domain", np.arange(3)) is None


def test_shards_of_two_token_types_are_refused(tmp_path, rows):
    folder = write_plain(tmp_path / "qwen-65", rows)
    write_shard(folder / "data_3", [len(row) for row in rows[8:13]], rows[8:13], np.dtype("<i4"))
    with pytest.raises(ArtefactError, match=r"data_3\.idx: expected uint16, found int32"):
        Corpus(folder)


def test_side_files_must_fit_their_shards(tmp_path, rows):
    folder = write_plain(tmp_path / "qwen-65", rows)
    path = folder / "domain_3.npy"
    for damage in (
        lambda: np.save(path, np.zeros(4, np.uint8)),
        lambda: np.save(path, np.zeros(5, np.int64)),
        lambda: path.write_bytes(b"\x93NUMPY damaged"),
        lambda: path.write_bytes(b""),
        lambda: path.unlink(),
    ):
        damage()
        corpus, others = Corpus(folder), np.array([21, 0, 7, 6])
        assert corpus.side("domain", others).tolist() == (others % 3).tolist()
        assert corpus.side("domain", others[:0]).dtype == np.uint8
        with pytest.raises(ArtefactError, match=r"domain_3\.npy") as caught:
            corpus.side("domain", np.array([0, 8]))
        assert caught.value.code == 3


def test_no_corpus_and_no_shards(tmp_path):
    with pytest.raises(InputError, match="there is no corpus"):
        Corpus(tmp_path / "none")
    (tmp_path / "data_0.bin").write_bytes(b"")
    with pytest.raises(InputError, match="no shards data_K"):
        Corpus(tmp_path)


def test_the_end_of_text_is_its_own_or_the_fallback_s(tmp_path, rows, tokenizer_folder):
    made = make.save_corpus(tmp_path / "bpe", rows, tokenizer_folder)
    assert Corpus(made, fallback_tokenizer=tmp_path / "none").eos_id == 0
    plain = write_plain(tmp_path / "qwen-65", rows)
    with pytest.raises(InputError, match="end-of-text.*qwen-65"):
        Corpus(plain).eos_id  # noqa: B018
    assert Corpus(plain, fallback_tokenizer=tokenizer_folder).eos_id == 0
    shutil.copytree(tokenizer_folder, plain / "tokenizer")
    assert Corpus(plain).eos_id == 0


def test_an_unfinished_corpus_is_never_used(tmp_path, rows):
    folder = write_plain(tmp_path / "qwen-65", rows)
    (folder / artefact.SETTINGS).write_text("{}")
    with pytest.raises(ArtefactError, match="unfinished"):
        Corpus(folder)


def test_ranges_of_shards():
    assert shard_range("240:246") == (240, 246)
    assert shard_range("")[0] == 0 and shard_range("")[1] > 10**9
    for text in ("3", "3:3", "4:3", "-1:3", "a:b", "1:2:3", "1:"):
        with pytest.raises(InputError, match="FIRST:LAST"):
            shard_range(text)


def test_what_is_known_of_the_rows_is_handed_on(tmp_path):
    known = {"tokenizer": "t", "eos_id": 3, "add_bos": True, "split": "test", "max_length": 9}
    output = Output(tmp_path, "corpus", "tests", {**known, "shard_size": 5}, {}).begin()
    write_shard(tmp_path / "test_0", [2], [np.array([1, 2])], np.dtype("<u2"))
    output.finish(["test_0.bin", "test_0.idx"], {})
    assert Corpus(tmp_path).carried() == known
