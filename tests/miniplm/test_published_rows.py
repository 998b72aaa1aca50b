"""tools/publish.py and --from-rows: a selection as row numbers, made again from a copy."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from miniplm import published_rows, selection
from tests import make
from tests.miniplm.test_selection import base, run  # noqa: F401 (a fixture)
from tools import publish

SELECTED = "processed_data/pretrain/pile-diff_samp-T-R-r0.5/corpus"


@pytest.fixture
def published(base, monkeypatch) -> Path:  # noqa: F811
    """BASE_PATH with a selected corpus of shards of 3 rows, published beside it."""
    run(monkeypatch, base, 0.5, "--shard-size", 3)
    monkeypatch.setattr(sys, "argv", ["program", str(base / SELECTED), "--to", str(base / "given")])
    publish.main()
    return base


def make_again(monkeypatch, base: Path, *words: object) -> Path:  # noqa: F811
    arguments = [base, "--from-rows", "given", "--save", "again", *words]
    monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
    selection.main()
    return base / "again"


@pytest.mark.parametrize("manifest", [True, False])
def test_a_copy_of_the_corpus_gives_it_byte_for_byte(manifest, published, monkeypatch):
    copy = published / "a copy-65"
    shutil.copytree(published / "corpus", copy)
    if not manifest:  # as others publish a corpus: its files alone
        make.disown(copy)
    again = make_again(monkeypatch, published, "--data-dir", "a copy-65")
    files = {path.name for path in (published / SELECTED).glob("data_*")}
    assert len(files) > 2
    for name in files:
        assert (again / name).read_bytes() == (published / SELECTED / name).read_bytes()
    rows = np.arange(len(Corpus(again)))
    expected = Corpus(published / SELECTED).side("source_row", rows)
    assert np.array_equal(Corpus(again).side("source_row", rows), expected)
    assert Corpus(again).manifest.counts["kept"] == len(rows)
    make_again(monkeypatch, published, "--data-dir", "a copy-65")  # is there already


def test_its_name_is_the_selection_s(published, monkeypatch):
    shutil.move(published / SELECTED, published / "elsewhere")
    words = ["program", str(published), "--from-rows", "given", "--data-dir", "corpus"]
    monkeypatch.setattr(sys, "argv", words)
    selection.main()
    assert make.content(published / SELECTED).keys() >= {"data_0.bin", "data_0.idx"}


def test_another_corpus_is_refused_by_name(published, monkeypatch):
    with pytest.raises(InputError, match=r"of another corpus.*other-65"):
        make_again(monkeypatch, published, "--data-dir", "other-65")
    flipped = published / "flipped-65"
    shutil.copytree(published / "corpus", flipped)
    make.disown(flipped)
    data = flipped / "data_1.bin"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    with pytest.raises(InputError, match=r"of another corpus: data_1.bin"):
        make_again(monkeypatch, published, "--data-dir", "flipped-65")
    assert not (published / "again").exists()


def test_what_is_damaged_or_no_selection_is_refused(published, monkeypatch):
    with pytest.raises(InputError, match="not selected here"):
        published_rows.write(published / "corpus", published / "nothing")
    with pytest.raises(InputError, match="not a published selection"):
        published_rows.read(published)
    rows = published / "given/rows.npy"
    bits = np.load(rows)
    np.save(rows, np.packbits(np.roll(np.unpackbits(bits), 1)))  # as many rows, but others
    with pytest.raises(ArtefactError, match="damaged"):
        make_again(monkeypatch, published, "--data-dir", "corpus")
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(ArtefactError, match="damaged"):
        published_rows.read(published / "given")
