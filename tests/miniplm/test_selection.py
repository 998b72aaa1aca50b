"""Selection against a full sort, and the account of every row of the corpus."""

import math
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from miniplm import selection
from miniplm.difference import FILE
from miniplm.ranking import descending, keep_count, top
from tests import make

ROWS, FIRST, SCORED = 30, 7, 16  # shards of 7, 16 and 7 rows; the one in the middle is scored


FEW = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 2.0, -np.inf, np.nan])
VALUES = st.lists(st.one_of(FEW, st.floats(-5, 5)), max_size=60)


@given(VALUES, st.data())
def test_ranks_equal_a_sort_of_pairs(values, data):
    """-0.0 and 0.0 are a tie, NaN is left out."""
    r = np.array(values, float)
    order = sorted(np.flatnonzero(~np.isnan(r)).tolist(), key=lambda i: (-values[i], i))
    assert descending(r).tolist() == order
    keep = data.draw(st.integers(0, len(order)))
    assert top(r, keep).tolist() == sorted(order[:keep])


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_keeps_the_floor_of_ratio_times_defined_rows(defined, percent):
    """Of the ratio as it is written: 0.29 x 100 is 28.999999999999996 in floating point."""
    keep = math.floor(Fraction(percent, 100) * defined)
    assert keep_count(percent / 100, defined) == keep
    assert keep_count(0.29, 100) == 29 and keep_count(0.145, 200) == 29


@pytest.fixture
def base(tmp_path, tokenizer_folder) -> Path:
    rows = make.random_rows(ROWS, 600, 0, longest=9)
    corpus = make.save_corpus(tmp_path / "corpus", rows, tokenizer_folder, shard_size=FIRST)
    make.save_corpus(tmp_path / "other-65", rows[1:], tokenizer_folder)
    r = np.random.default_rng(0).normal(size=SCORED).round(1)
    r[[2, 9]] = np.nan
    store(tmp_path, corpus, r, FIRST)
    return tmp_path


def store(base: Path, corpus: Path, r: np.ndarray, first_row: int) -> None:
    """A finished store of the differences r of the rows from first_row on."""
    folder = base / "scores/diff-T-R"
    inputs = {"corpus": (corpus, artefact.identity(corpus, "corpus", ""))}
    output = Output(folder, "scores", "tests", {"type": "difference"}, {}, inputs).begin()
    np.save(folder / FILE, r)
    undefined = int(np.isnan(r).sum())
    counts = {"sequences": len(r), "first_row": first_row}
    counts |= {"without_a_defined_difference": undefined, "seen_in_training": False}
    output.finish([FILE], counts)


def run(monkeypatch, base: Path, *words: object, corpus: str = "corpus") -> None:
    flags = ["--data-dir", corpus, "--scores", "scores", "--teacher-name", "T", "--ref-name", "R"]
    arguments = [str(word) for word in words]
    plain = [word for word in arguments[:1] if not word.startswith("-")]
    rest = arguments[len(plain) :]
    monkeypatch.setattr(sys, "argv", ["program", str(base), *plain, *flags, *rest])
    selection.main()


def check_rows(base: Path, folder: Path, expected: list[int]) -> None:
    whole, selected = Corpus(base / "corpus"), Corpus(folder)
    numbers = np.arange(len(selected))
    assert selected.side("source_row", numbers).tolist() == expected
    assert selected.side("source_row", numbers).dtype == np.int64
    assert selected.side("domain", numbers).tolist() == [row % 2 for row in expected]
    assert selected.domains == ["A", "B"]
    for number, row in enumerate(expected):
        np.testing.assert_array_equal(selected.row(number), whole.row(row))


@pytest.mark.parametrize("ratio", [0.5, 0.3, 1.0])
def test_the_selected_corpus(ratio, base, monkeypatch, capsys):
    run(monkeypatch, base, ratio, "--shard-size", 3)
    folder = base / f"processed_data/pretrain/pile-diff_samp-T-R-r{ratio:g}/corpus"
    r, keep = np.load(base / "scores/diff-T-R" / FILE), {0.5: 7, 0.3: 4, 1.0: 14}[ratio]
    # A full sort, ties by lower row number.
    expected = np.sort(FIRST + np.argsort(-r, kind="stable")[:keep]).tolist()
    check_rows(base, folder, expected)
    manifest = artefact.require(folder, "corpus", "", contents=True)
    counts = manifest.counts
    assert counts["kept"] == counts["sequences"] == len(expected)
    assert counts["shards"] == math.ceil(len(expected) / 3)
    assert counts["tokens"] == int(Corpus(base / "corpus").lengths(np.array(expected)).sum())
    text = f"{len(expected)} kept + {14 - len(expected)} dropped + 2 without a defined difference"
    assert f"{text} + 14 not scored = 30 rows" in capsys.readouterr().out
    source = artefact.read_manifest(base / "corpus")
    assert manifest.inputs["corpus"]["fingerprint"] == source.fingerprint
    for name in ("tokenizer", "eos_id", "max_length"):
        assert manifest.content[name] == source.content[name]
    assert Corpus(folder).tokenizer_folder is not None
    before = (folder / artefact.MANIFEST).read_bytes()
    run(monkeypatch, base, ratio, "--shard-size", 3)
    assert (folder / artefact.MANIFEST).read_bytes() == before


def random_selection(monkeypatch, base: Path, seed: int, save: str) -> list[int]:
    run(monkeypatch, base, "--criterion", "random", "--seed", seed, "--save", save)
    selected = Corpus(base / save)
    rows = selected.side("source_row", np.arange(len(selected))).tolist()
    check_rows(base, base / save, rows)
    return rows


def test_the_random_control(base, monkeypatch):
    """As many rows of the same pool, drawn by the seed alone."""
    drawn = {seed: random_selection(monkeypatch, base, seed, f"c{seed}") for seed in range(12)}
    assert random_selection(monkeypatch, base, 3, "again") == drawn[3]
    assert len({tuple(rows) for rows in drawn.values()}) > 9
    defined = np.flatnonzero(~np.isnan(np.load(base / "scores/diff-T-R" / FILE))) + FIRST
    for rows in drawn.values():
        assert len(rows) == 7 and rows == sorted(rows) and set(rows) <= set(defined)
    assert set().union(*drawn.values()) == set(defined)
    run(monkeypatch, base, "--criterion", "random")
    assert (base / "processed_data/pretrain/pile-random_samp-T-R-r0.5/corpus").is_dir()


def test_mistakes(base, monkeypatch):
    def refuse(error, match, *words, **keywords):
        with pytest.raises(error, match=match):
            run(monkeypatch, base, *words, **keywords)
        assert not (base / "processed_data").exists()

    for ratio in ("0", "1.01", "nan"):
        refuse(InputError, "RATIO", ratio)
    refuse(InputError, "RATIO", "--ratio", "-0.5")
    refuse(InputError, "ratio", "half")
    refuse(InputError, "--criterion", "--criterion", "best")
    refuse(InputError, "scores are of another corpus", corpus="other-65")
    refuse(InputError, "there is no corpus", corpus="nowhere")
    (base / "scores/diff-T-R" / FILE).unlink()
    refuse(ArtefactError, "missing")


def test_a_ratio_that_selects_none(base, monkeypatch):
    with pytest.raises(InputError, match="RATIO=0.05 of 14 sequences"):
        run(monkeypatch, base, 0.05)


def test_a_store_of_another_kind(base, monkeypatch):
    folder = base / "scores/diff-T-R"
    folder.rename(base / "scores/gone")
    with pytest.raises(InputError, match="there are no scores"):
        run(monkeypatch, base)
    make.save_scores(folder, base / "corpus", "m", [-1.0], [1])
    with pytest.raises(InputError, match="not a store of differences"):
        run(monkeypatch, base)
    (folder / artefact.MANIFEST).unlink()
    with pytest.raises(ArtefactError, match="unfinished"):
        run(monkeypatch, base)


def test_changed_scores_are_not_mixed_into_a_finished_selection(base, monkeypatch):
    run(monkeypatch, base)
    manifest = base / "scores/diff-T-R" / artefact.MANIFEST
    manifest.unlink()
    store(base, base / "corpus", np.arange(SCORED, dtype=float), FIRST)
    with pytest.raises(InputError, match="made from another scores"):
        run(monkeypatch, base)


def test_another_seed_is_another_corpus(base, monkeypatch):
    random_selection(monkeypatch, base, 1, "seeded")
    with pytest.raises(InputError, match="another seed"):
        random_selection(monkeypatch, base, 2, "seeded")
