"""Difference scores: r = mean log-probability under the teacher less that under the reference."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact
from data_utils.artefact_writer import Output
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
    t, ref = (Scores(base / "scores" / name, "").means()[0] for name in "TR")
    assert t.dtype == ref.dtype == np.float64
    np.testing.assert_array_equal(t - ref, R)


def test_means_are_divided_in_float64(base):
    """Of float32 sums; neither quotient is a float32 number."""
    make.save_scores(base / "scores/T", base / "corpus", "teacher", [-10.0, -1.0], [3, 3])
    assert Scores(base / "scores/T", "").means()[0].tolist() == [-10 / 3, -1 / 3]


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


def stores(
    base: Path, models=("teacher", "reference"), scores=(TEACHER, REFERENCE), corpus="corpus",
    **changes: object,
) -> None:  # fmt: skip
    """The stores of both; corpus and changes: of the reference's alone."""
    make.save_scores(base / "scores/T", base / "corpus", models[0], *scores[0])
    make.save_scores(base / "scores/R", base / corpus, models[1], *scores[1], **changes)


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
    assert manifest.counts == {**counts, "seen_in_training": False}
    corpus = artefact.read_manifest(base / "corpus").fingerprint
    assert manifest.input_fingerprint("corpus") == corpus
    assert "4 differences, mean 0.625" in capsys.readouterr().out
    run(monkeypatch, base)
    assert "is there already" in capsys.readouterr().out


def refuse(monkeypatch, base: Path, error: type, match: str, *flags: object) -> None:
    with pytest.raises(error, match=match):
        run(monkeypatch, base, *flags)
    assert not (base / "scores/diff-T-R" / artefact.MANIFEST).exists()


CHANGES = {  # what differs in the reference's store, and what the message says of it
    "corpus": ({"corpus": "other"}, "different corpora"),
    "shards": ({"shards": [1, 2]}, "different shards"),
    "sequences": (
        {"scores": (TEACHER, ([-8.0, -6.0, 0.0, -1.5], [2, 3, 0, 1]))},
        "different numbers",
    ),
    "counts": (
        {"scores": (TEACHER, (REFERENCE[0], [2, 3, 0, 2, 4]))},
        "different tokens in scored row 3",
    ),
    "same model": ({"models": ("teacher", "teacher")}, "are the same model"),
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
        manifest.inputs["model"]["fingerprint"] = "the same"
        manifest.write()
    refuse(monkeypatch, base, InputError, "are the same model")


@pytest.fixture
def three_models(base) -> Path:
    """large and small, without manifests; ours, small too, trained on part of the corpus."""
    for name, hidden, seed in (("large", 64, 1), ("small", 32, 2), ("ours", 32, 3)):
        make.save_model(base / "scores" / name, make.qwen_config(600, hidden), seed)
    folder, part = base / "scores/ours", {"kind": "corpus", "fingerprint": "a part of it"}
    output = Output(folder, "model", "tests", {}, {}, {"corpus": (base, part)})
    corpus = artefact.read_manifest(base / "corpus").fingerprint
    files = [path.name for path in folder.iterdir()]
    output.finish(files, {"step": 1, "trained_on": {"a part of it": [0, 1], corpus: [0, 1]}})
    return base


@pytest.mark.parametrize(
    "right, wrong, message",
    [
        (("large", "small"), ("small", "large"), r"T has 44,640 parameters, R 105,664"),
        (("small", "ours"), ("ours", "small"), "T was trained on part of the scored corpus"),
        (("large", "ours"), ("ours", "large"), "T was trained on part of the scored corpus"),
    ],
)
def test_exchanged_models(right, wrong, message, three_models, monkeypatch, capsys):
    """The parameters tell; what the models were trained on tells more."""
    base = three_models
    stores(base, wrong)
    refuse(
        monkeypatch, base, InputError, f"look exchanged .{message}.*--teacher-name R --ref-name T"
    )
    run(monkeypatch, base, "--allow-weaker-teacher", "true")
    for name in ("T", "R", "diff-T-R"):
        shutil.rmtree(base / "scores" / name)
    stores(base, right)
    run(monkeypatch, base)
    assert "WARNING" not in capsys.readouterr().out


def test_exchanged_scores(base, monkeypatch, capsys):
    """Where nothing is known of the models their scores tell, unless they are about equal."""
    stores(base, scores=(REFERENCE, TEACHER))
    refuse(monkeypatch, base, InputError, "mean r is -0.625.*--allow-weaker-teacher")
    run(monkeypatch, base, "--allow-weaker-teacher", "true")
    assert "WARNING mean r is -0.625" in capsys.readouterr().out


def test_untrained_models_of_one_size_may_stand_in(base, monkeypatch):
    close = ([-2.1, -9.1, 0.0, -1.55, -4.1], TEACHER[1])
    stores(base, scores=(close, TEACHER))
    run(monkeypatch, base)


def test_scores_of_999_of_1000_sequences(tmp_path, tokenizer_folder, monkeypatch):
    make.save_corpus(tmp_path / "corpus", make.random_rows(1000, 600, 0), tokenizer_folder)
    sums, counts = -np.arange(1000.0), np.full(1000, 5)
    for name, model, rows in (("T", "teacher", 1000), ("R", "reference", 999)):
        place = tmp_path / "scores" / name
        make.save_scores(place, tmp_path / "corpus", model, sums[:rows], counts[:rows])
    message = "different numbers of sequences in .*scores/R: expected 1000, found 999.*104M.sh"
    refuse(monkeypatch, tmp_path, InputError, message)
    shutil.rmtree(tmp_path / "scores/T")
    make.save_scores(
        tmp_path / "scores/T", tmp_path / "corpus", "teacher", sums[:999], counts[:999]
    )
    message = "lacks scores.*scores/T: expected 1000 sequences, found 999.*run"
    refuse(monkeypatch, tmp_path, ArtefactError, message)


def test_a_missing_block_and_a_block_of_another_corpus(base, monkeypatch):
    stores(base)
    first, second = (base / f"scores/R/block_00000{number}.safetensors" for number in (0, 1))
    whole = first.read_bytes()
    make.save_scores(base / "scores/X", base / "other", "reference", *TEACHER)
    first.write_bytes((base / "scores/X" / first.name).read_bytes())
    fix = "run bash scripts/miniplm/difference_sampling/104M.sh BASE_PATH.*remove manifest.json"
    message = f"checksum does not hold in .*{first.name}.*{fix}"
    refuse(monkeypatch, base, ArtefactError, message)
    first.write_bytes(whole)
    second.unlink()
    refuse(
        monkeypatch, base, ArtefactError, f"a file of the scores is missing .*{second.name}.*{fix}"
    )


def test_a_score_that_is_no_number_never_gets_into_a_difference(base, monkeypatch):
    stores(base, scores=(TEACHER, ([-8.0, np.nan, 0.0, -1.5, -6.0], REFERENCE[1])))
    refuse(monkeypatch, base, ArtefactError, "score of row 1 is nan in .*scores/R")


def test_missing_and_unfinished_stores(base, monkeypatch):
    refuse(monkeypatch, base, InputError, "there are no scores in .*scores/T")
    stores(base)
    refuse(monkeypatch, base, InputError, "scores/Q", "--ref-name", "Q")
    (base / "scores/R" / artefact.MANIFEST).unlink()
    refuse(monkeypatch, base, ArtefactError, "unfinished")
    (base / "scores/corpus").symlink_to(base / "corpus")
    refuse(
        monkeypatch,
        base,
        InputError,
        "not scores .*expected scores, found corpus",
        "--ref-name",
        "corpus",
    )


def test_a_corpus_that_was_changed_since(base, monkeypatch):
    stores(base)
    (base / "corpus").rename(base / "scored")
    (base / "other").rename(base / "corpus")
    refuse(monkeypatch, base, InputError, "not the one that was scored")


def test_changed_inputs_of_a_finished_store(base, monkeypatch):
    stores(base)
    run(monkeypatch, base)
    shutil.rmtree(base / "scores/R")
    stores(base, scores=(TEACHER, ([-8.0, -6.0, 0.0, -1.5, -7.0], REFERENCE[1])))
    with pytest.raises(InputError, match="reference.*scores/diff-T-R"):
        run(monkeypatch, base)
