"""tools/verify.py finds what is damaged and adopts what others made.

.venv/bin/python -m pytest tests/tools/test_verify.py
"""

import json
import shutil

import pytest

from tests import make

VERIFY = "tools/verify.py"


@pytest.fixture
def corpus(tmp_path, tokenizer_folder):
    rows = make.random_rows(50, 600, 0)
    return make.save_corpus(tmp_path / "pile/qwen-65", rows, tokenizer_folder)


def test_a_whole_corpus_and_a_flipped_byte(corpus):
    assert "1 artefacts are whole" in make.run(VERIFY, corpus.parent).stdout
    data = bytearray((corpus / "data_0.bin").read_bytes())
    data[40] ^= 1
    (corpus / "data_0.bin").write_bytes(data)
    result = make.run(VERIFY, corpus, check=False)
    assert result.returncode == 3 and "data_0.bin" in result.stdout


@pytest.fixture
def theirs(corpus, tmp_path):
    """The same made by others: a shard alone."""
    theirs = tmp_path / "theirs-65"
    theirs.mkdir()
    for name in ("data_0.bin", "data_0.idx"):
        shutil.copyfile(corpus / name, theirs / name)
    return theirs


def test_a_foreign_corpus_is_adopted(theirs, tokenizer_folder):
    assert make.run(VERIFY, theirs, check=False).returncode == 2
    make.run(VERIFY, "--adopt", theirs, "--tokenizer-path", tokenizer_folder)
    manifest = json.loads((theirs / "manifest.json").read_text())
    assert manifest["counts"]["sequences"] == 50 and manifest["content"]["eos_id"] == 0
    assert "whole" in make.run(VERIFY, theirs).stdout


def test_an_index_that_jumps_is_found_on_adoption(theirs):
    index = bytearray((theirs / "data_0.idx").read_bytes())
    index[34] += 1  # the first row is longer than its distance to the second
    (theirs / "data_0.idx").write_bytes(index)
    result = make.run(VERIFY, "--adopt", theirs, check=False)
    assert result.returncode == 3 and "does not begin where" in result.stdout


def test_no_path_and_no_artefact(tmp_path):
    assert make.run(VERIFY, check=False).returncode == 2
    empty = make.run(VERIFY, tmp_path, check=False)
    assert empty.returncode == 2 and "no finished artefact" in empty.stderr
