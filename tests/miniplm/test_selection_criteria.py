"""Selection by other criteria and by a budget of tokens, from stores over a part of a corpus.

.venv/bin/python -m pytest tests/miniplm/test_selection_criteria.py
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from miniplm import criteria, difference, selection, shard_copy
from tests import make

ROWS, SHARD = 50, 10  # five shards; the second to the fourth are scored: rows 10 .. 39
FIRST, SCORED = 10, 30
NAMES = ["--scores", "scores", "--teacher-name", "T", "--ref-name", "R"]


@pytest.fixture(scope="module")
def scores() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(teacher's, reference's mean log-probabilities, counts) of the scored rows, with ties."""
    generator = np.random.default_rng(1)
    reference = -generator.integers(8, 14, SCORED) / 2.0
    teacher = reference + generator.integers(-1, 6, SCORED) / 2.0
    return teacher, reference, np.where(np.isin(np.arange(SCORED), [4, 17]), 0, 4)


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder, scores) -> Path:
    base = tmp_path_factory.mktemp("base")
    rows = make.random_rows(ROWS, 600, 0, longest=9)
    corpus = make.save_corpus(base / "corpus", rows, tokenizer_folder, shard_size=SHARD)
    teacher, reference, counts = scores
    for name, model, means in (("T", "teacher", teacher), ("R", "reference", reference)):
        sums = means * counts
        make.save_scores(base / "scores" / name, corpus, model, sums, counts, FIRST, shards=[1, 4])
    difference.compute(difference.parse(difference.Settings, [str(base), *NAMES], "base_path"))
    return base


def select(monkeypatch, base: Path, *flags: object, ratio: tuple = ()) -> tuple[list[int], dict]:
    """(rows of the corpus that a selection keeps, its counts); every row of it is checked."""
    arguments = [str(w) for w in (base, *ratio, "--data-dir", "corpus", *NAMES, *flags)]
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    selection.main()
    settings = selection.parse(selection.Settings, arguments, positional="base_path ratio")
    folder = base / settings.output_folder()
    manifest = artefact.require(folder, "corpus", "", contents=True)
    whole, selected = Corpus(base / "corpus"), Corpus(folder)
    rows = selected.side("source_row", np.arange(len(selected)))
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(selected.row(number), whole.row(int(row)))
    account(manifest.counts, rows)
    return rows.tolist(), manifest.counts


def account(counts: dict, rows: np.ndarray) -> None:
    """Kept + dropped + without a defined r + not scored = rows of the corpus, no row twice."""
    assert len(set(rows.tolist())) == len(rows) == counts["kept"] == counts["sequences"]
    assert counts["without_a_defined_difference"] == 2
    assert counts["not_scored"] == ROWS - SCORED
    assert counts["dropped"] == SCORED - 2 - len(rows)
    parts = ("kept", "dropped", "without_a_defined_difference", "not_scored")
    assert sum(counts[name] for name in parts) == counts["rows_of_the_corpus"] == ROWS


def ranking(scores: tuple, criterion: str) -> list[int]:
    """Rows of the corpus from the highest to the lowest, ties by row."""
    teacher, reference, counts = scores
    value = {"difference": teacher - reference, "teacher": teacher, "reference": -reference}
    defined = [i for i in range(SCORED) if counts[i]]
    return [FIRST + i for i in sorted(defined, key=lambda i: (-value[criterion][i], i))]


@pytest.mark.parametrize("criterion", ["difference", "teacher", "reference"])
def test_each_criterion_keeps_the_highest_of_its_values(criterion, base, scores, monkeypatch):
    rows, _ = select(monkeypatch, base, "--criterion", criterion)
    assert rows == sorted(ranking(scores, criterion)[:14])
    short = {"difference": "diff"}.get(criterion, criterion)
    assert (base / f"processed_data/pretrain/pile-{short}_samp-T-R-r0.5/corpus").is_dir()


def test_the_difference_is_the_sum_of_the_two_ablations(base, scores):
    store = base / "scores/diff-T-R"
    differences = criteria.Differences(store, artefact.read_manifest(store).inputs)
    rows = criteria.Candidates(None, FIRST, SCORED, criteria.Choice(), differences)
    r, teacher, reference, random = (rank(rows) for rank in criteria.STORED[:4])
    np.testing.assert_allclose(teacher + reference, r, rtol=1e-6)
    for values in (teacher, reference, random):
        np.testing.assert_array_equal(np.isnan(values), np.isnan(r))


@pytest.mark.parametrize(
    "criterion, words, part, content",
    [
        ("reference_band", ["--band", "low"], "-low", {"band": "low", "seed": None}),
        ("temperature", ["--tau", 0.5, "--seed", 3], "-tau0.5-seed3", {"tau": 0.5, "seed": 3}),
        ("by_source", [], "", {"seed": None}),
    ],
)
def test_other_criteria_from_the_same_stores(
    criterion, words, part, content, base, scores, monkeypatch
):
    """Their rules: test_criteria.py."""
    rows, _ = select(monkeypatch, base, "--criterion", criterion, *words)
    manifest = artefact.read_manifest(
        base / f"processed_data/pretrain/pile-{criterion}_samp-T-R{part}-r0.5/corpus"
    )
    assert content.items() <= manifest.content.items() and "scores" in manifest.inputs
    set_by = {name: value for name, value in content.items() if value is not None}
    settings = criteria.Choice(criterion=criterion, **set_by)
    folder = base / "scores/diff-T-R"
    store = criteria.Differences(folder, artefact.read_manifest(folder).inputs)
    whole = Corpus(base / "corpus")
    values = criteria.Candidates(whole, FIRST, SCORED, settings, store).values()
    order = [i for i in range(SCORED) if scores[2][i]]
    assert rows == sorted(FIRST + i for i in sorted(order, key=lambda i: (-values[i], i))[:14])
    if criterion == "by_source":
        assert sum(row % 2 for row in rows) == 7


@pytest.mark.parametrize("tokens", [9, 40, 77, "all"])
@pytest.mark.parametrize("criterion", ["difference", "reference"])
def test_a_budget_of_tokens(tokens, criterion, base, scores, monkeypatch):
    """From the highest down, until the next would exceed it."""
    lengths = Corpus(base / "corpus").lengths(np.arange(ROWS))
    order = ranking(scores, criterion)
    tokens = int(lengths[order].sum()) if tokens == "all" else tokens
    reached = np.cumsum(lengths[order])
    expected = sorted(order[: np.count_nonzero(reached <= tokens)])
    rows, counts = select(monkeypatch, base, "--tokens", tokens, "--criterion", criterion)
    assert rows == expected and 0 < counts["tokens"] <= tokens
    short = {"difference": "diff"}.get(criterion, criterion)
    assert (base / f"processed_data/pretrain/pile-{short}_samp-T-R-t{tokens}/corpus").is_dir()


def test_a_random_budget_of_tokens(base, monkeypatch):
    rows, counts = select(monkeypatch, base, "--tokens", 60, "--criterion", "random")
    assert 50 < counts["tokens"] <= 60 and min(rows) >= FIRST and max(rows) < FIRST + SCORED


def test_a_selection_of_a_selection(base, monkeypatch, tokenizer_folder):
    """source_row names the row of the corpus that was selected from, not of that one's source."""
    corpus = Corpus(base / "corpus")
    corpus_rows = [corpus.row(row) for row in range(ROWS)]
    again = base / "again"
    make.save_corpus(
        again / "corpus", corpus_rows, tokenizer_folder, shard_size=SHARD, source_row=900
    )
    selected = Corpus(again / "corpus")
    assert selected.side("source_row", np.array([3])).tolist() == [903]
    rows, folder = np.array([3, 14, 15, 44]), base / "copied"
    folder.mkdir()
    files, shards, tokens = shard_copy.copy_shards(selected, rows, folder, 3)
    assert shards == 2 and len(files) == 8
    copied = [np.load(folder / f"source_row_{shard}.npy").tolist() for shard in (0, 1)]
    assert copied == [[3, 14, 15], [44]]
    assert tokens == sum(len(corpus_rows[row]) for row in rows)


def test_mistakes(base, monkeypatch):
    def refuse(error, match, *flags, **ratio):
        with pytest.raises(error, match=match):
            select(monkeypatch, base, *flags, **ratio)

    refuse(InputError, "RATIO .0.3. or --tokens .50., not both", "--tokens", 50, ratio=(0.3,))
    refuse(InputError, "--tokens", "--tokens", -1)
    refuse(InputError, "--shard-size", "--shard-size", 0)
    refuse(InputError, r"--tokens of at most \d+, found 1000000", "--tokens", 1_000_000)
    refuse(InputError, "--tokens 1 is less than the first", "--tokens", 1)


def test_scores_that_are_not_those_of_the_differences(base, monkeypatch, tmp_path):
    """A teacher's store that was made again since the differences."""
    store = base / "scores/T"
    manifest = artefact.read_manifest(store)
    replace(manifest, content={**manifest.content, "precision": "bf16"}).write()
    with pytest.raises(InputError, match="not the teacher's scores that the differences"):
        select(monkeypatch, base, "--criterion", "teacher", "--save", "changed")
    manifest.write()


def test_a_flipped_byte_among_the_differences(base, monkeypatch):
    path = base / "scores/diff-T-R" / difference.FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(ArtefactError, match="checksum does not hold in .*difference.npy"):
        select(monkeypatch, base, "--save", "flipped")
    path.write_bytes(whole)
