"""Difference scores: r = mean log-probability under the teacher less that under the reference."""

import sys
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact
from data_utils.errors import ArtefactError, InputError
from miniplm import difference as program
from miniplm.scores import Scores
from tests import make

TEACHER = ([-2.0, -9.0, 0.0, -1.5, -4.0], [2, 3, 0, 1, 4])
REFERENCE = ([-8.0, -6.0, 0.0, -1.5, -6.0], [2, 3, 0, 1, 4])
R = [3.0, -1.0, np.nan, 0.0, 0.5]


def test_hand_made_numbers(base):
    """Reference loss minus teacher loss, per counted token; undefined where none counts."""
    stores(base)
    t, ref = (program.means(Scores(base / "scores" / name, "")) for name in "TR")
    assert t.dtype == ref.dtype == np.float64
    np.testing.assert_array_equal(t - ref, R)


def test_what_was_counted_must_agree():
    counts = np.arange(1000)
    program.same_counts(counts, counts.copy())
    with pytest.raises(InputError, match="different tokens in scored row 777"):
        program.same_counts(counts, np.where(counts == 777, 3, counts))


@pytest.fixture
def base(tmp_path, tokenizer_folder) -> Path:
    rows = make.random_rows(6, 600, 0, longest=9)
    make.save_corpus(tmp_path / "corpus", rows[:5], tokenizer_folder)
    make.save_corpus(tmp_path / "other", rows[1:], tokenizer_folder)
    return tmp_path


def stores(base: Path, corpus="corpus", model="reference", sums=REFERENCE, **changes) -> None:
    """The teacher's store as it is, the reference's with changes."""
    make.save_scores(base / "scores/T", base / "corpus", "teacher", *TEACHER)
    make.save_scores(base / "scores/R", base / corpus, model, *sums, **changes)


def run(monkeypatch, base: Path, *flags: object) -> None:
    names = ["--scores", "scores", "--teacher-name", "T", "--ref-name", "R"]
    monkeypatch.setattr(sys, "argv", ["program", str(base), *names, *map(str, flags)])
    program.main()


def test_the_store_holds_the_differences_and_its_origin(base, monkeypatch, capsys):
    stores(base)
    run(monkeypatch, base)
    folder = base / "scores/diff-T-R"
    np.testing.assert_array_equal(np.load(folder / program.FILE), R)
    manifest = artefact.require(folder, "scores", "", contents=True)
    counts = {"sequences": 5, "first_row": 0, "without_a_defined_difference": 1}
    assert manifest["counts"] == counts
    corpus = artefact.read_manifest(base / "corpus")["fingerprint"]
    assert manifest["report"]["corpus"] == corpus
    assert "4 differences, mean 0.625" in capsys.readouterr().out
    assert (folder / "report.html").stat().st_size > 1000
    run(monkeypatch, base)
    assert "is there already" in capsys.readouterr().out


def refuse(monkeypatch, base: Path, error: type, match: str, *flags: object) -> None:
    with pytest.raises(error, match=match):
        run(monkeypatch, base, *flags)
    assert not (base / "scores/diff-T-R" / artefact.MANIFEST).exists()


CHANGES = {  # what differs in the reference's store, and what the message says of it
    "corpus": ({"corpus": "other"}, "different corpora"),
    "shards": ({"shards": [1, 2]}, "different shards"),
    "sequences": ({"sums": ([-8.0, -6.0, 0.0, -1.5], [2, 3, 0, 1])}, "different numbers"),
    "counts": ({"sums": (REFERENCE[0], [2, 3, 0, 2, 4])}, "different tokens in scored row 3"),
    "same model": ({"model": "teacher"}, "are the same model"),
}


@pytest.mark.parametrize("changes, message", CHANGES.values(), ids=CHANGES)
def test_stores_that_do_not_belong_together(changes, message, base, monkeypatch):
    stores(base, **changes)
    refuse(monkeypatch, base, InputError, message)


def test_a_copy_of_the_teacher_is_no_reference(base, monkeypatch):
    """The same weights in another folder are the same model."""
    stores(base)
    for name in ("T", "R"):
        manifest = artefact.read_manifest(base / "scores" / name)
        manifest["inputs"]["model"]["fingerprint"] = "the same"
        manifest["fingerprint"] = artefact.fingerprint(manifest)
        artefact.write_json(base / "scores" / name / artefact.MANIFEST, manifest)
    refuse(monkeypatch, base, InputError, "are the same model")


def test_a_score_that_is_no_number_never_gets_into_a_difference(base, monkeypatch):
    stores(base, sums=([-8.0, np.nan, 0.0, -1.5, -6.0], REFERENCE[1]))
    refuse(monkeypatch, base, ArtefactError, "score of row 1 is nan in .*scores/R")


def test_missing_and_unfinished_stores(base, monkeypatch):
    refuse(monkeypatch, base, InputError, "there is no scores in .*scores/T")
    stores(base)
    refuse(monkeypatch, base, InputError, "scores/Q", "--ref-name", "Q")
    (base / "scores/R" / artefact.MANIFEST).unlink()
    refuse(monkeypatch, base, ArtefactError, "unfinished")
    refuse(monkeypatch, base, InputError, "no score store|no scores", "--ref-name", "../corpus")


def test_a_corpus_that_was_changed_since(base, monkeypatch):
    stores(base)
    (base / "corpus").rename(base / "scored")
    (base / "other").rename(base / "corpus")
    refuse(monkeypatch, base, InputError, "not the one that was scored")


def test_changed_inputs_of_a_finished_store(base, monkeypatch):
    stores(base)
    run(monkeypatch, base)
    with pytest.raises(InputError, match="begun with another ratio"):
        run(monkeypatch, base, "--ratio", 0.3)
