"""eval/compare.py: the paired interval, the verdicts, the tables, and what it refuses."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_utils import atomic_files
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from eval import compare, compare_page
from miniplm import difference
from reports import selection_report
from tests import make

STEPS, BATCH, ROWS = 6, 8, 20


def save_run(base: Path, name: str, corpus: Path, losses: np.ndarray, seed: int = 10) -> str:
    """A finished run of STEPS x BATCH sequences with its held-out losses; its folder's name."""
    folder = base / "results" / name
    identity = Corpus(corpus).identity
    output = Output(
        folder, "model", "tests", {"seed": seed, "lr": 1e-3}, {}, {"corpus": (corpus, identity)}
    ).begin()
    (folder / "model.safetensors").write_text(name)
    lines = [{"step": s, "loss": 9 - 0.1 * s} for s in range(1, STEPS + 1)]
    lines[-1]["valid_loss"] = 8.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    counts = {"step": STEPS, "sequences": STEPS * BATCH, "tokens": 1234}
    manifest = output.finish(["model.safetensors"], counts)
    save_losses(base, name, losses, manifest.fingerprint)
    return f"{name}=results/{name}"


def save_losses(base: Path, name: str, losses: np.ndarray, model: str, corpus: str = "c") -> None:
    """The files of eval/lm.py."""
    folder = base / "results/eval/lm"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", losses)
    result = {
        "model": {"path": f"results/{name}", "kind": "model", "fingerprint": model},
        "corpus": {"path": "held_out", "kind": "corpus", "fingerprint": corpus},
        "sequences": len(losses),
        "loss": float(losses.mean()),
        "perplexity": float(np.exp(losses.mean())),
    }
    atomic_files.write_json(folder / f"{name}.json", result)


@pytest.fixture
def base(tmp_path, tokenizer_folder) -> Path:
    """BASE PATH with a corpus, a run on it that is better by 0.1, and a control."""
    base = tmp_path / "with space"
    rows = make.random_rows(ROWS, 600, 0)
    corpus = make.save_corpus(base / "corpus", rows, tokenizer_folder)
    generator = np.random.default_rng(0)
    control = generator.normal(7, 1, 64)
    save_run(base, "control", corpus, control)
    save_run(base, "student", corpus, control - 0.1 + generator.normal(0, 0.05, 64))
    return base


RUNS = "student=results/student,control=results/control"


def test_interval_is_student_s_over_the_differences():
    from scipy.stats import ttest_rel

    generator = np.random.default_rng(1)
    control = generator.normal(7, 1, 128)
    losses = control + generator.normal(-0.05, 0.1, 128)
    expected = ttest_rel(losses, control).confidence_interval(0.95)
    mean, low, high = compare.paired_difference(losses, control)
    assert mean == pytest.approx(np.mean([a - b for a, b in zip(losses, control, strict=True)]))
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    # Pairing matters: the spread of the losses themselves is far larger.
    assert high - low < 0.1 * losses.std()


@pytest.mark.parametrize(
    ("difference", "half", "says"),
    [
        (-0.1, 0.01, "s is ahead of c by 0.100"),
        (0.1, 0.01, "s does not beat c: .* 0.100"),
        (-0.01, 0.02, "s does not beat c beyond chance"),
    ],
)
def test_verdict_follows_the_sign_and_the_interval(difference, half, says):
    row = {"student": "s", "difference": difference}
    row |= {"low": difference - half, "high": difference + half}
    assert re.match(says, compare.verdict(row, "c"))


SCORES = {"scores": "scores", "teacher_name": "T", "ref_name": "R"}


def save_store(base: Path) -> None:
    """A difference store with its report: of 20 rows, the odd ones (source B) have the higher r."""
    for name, means in (("T", np.arange(ROWS) % 2 - 8.0), ("R", np.full(ROWS, -9.0))):
        make.save_scores(base / "scores" / name, base / "corpus", name, means * 5, [5] * ROWS)
    difference.compute(difference.Settings(base_path=str(base), **SCORES))
    selection_report.draw_report(selection_report.Settings(base_path=str(base), **SCORES))


def test_the_program_prints_and_writes_all_of_it(base):
    save_store(base)
    (base / "stages.tsv").write_text("Corpus\tprocessed\tmake <it>\t12\nTrain\tresults\trun\t75\n")
    result = make.run(
        "eval/compare.py", base, "--runs", RUNS, "--control", "control",
        "--scores", "scores/diff-T-R", "--planted", "A,none",
        "--stages", "stages.tsv", "--report", "out/report.html",
    )  # fmt: skip
    figures = json.loads((base / "out/report.json").read_text())
    student, control = figures["runs"]
    losses = [np.load(base / f"results/eval/lm/{name}.npy") for name in ("student", "control")]
    assert student["difference"] == pytest.approx(float((losses[0] - losses[1]).mean()))
    assert control["difference"] is None
    assert student["epochs"] == pytest.approx(STEPS * BATCH / ROWS)
    assert student["steps"] == STEPS
    lengths = Corpus(base / "corpus").lengths(np.arange(ROWS))
    assert student["unique_tokens"] == lengths.sum()  # more than one epoch: the whole corpus
    page = (base / "out/report.html").read_text()
    planted = "50.0 % of the scored sequences were planted (A): 0.0 % of these are kept"
    for words in ("student is ahead of control by", "a real student", "1 min 27 s", planted):
        assert words in result.stdout and words in page, words
    assert "100.0 %" in result.stdout  # source B is kept whole
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page and "<script" not in page
    top = list(csv.DictReader(open(base / "scores/diff-T-R-report/examples.csv")))[0]
    assert f"rank 1, row {top['row']}" in page


def test_a_report_of_other_scores_is_refused(base):
    save_store(base)
    store = base / "scores/diff-T-R"
    assert compare_page.read_selection(store, []).planted == []
    summary = base / "scores/diff-T-R-report/summary.json"
    summary.write_text(summary.read_text().replace('"scores": "', '"scores": "0'))
    with pytest.raises(InputError, match="diff-T-R-report.*compute_difference_scores.py"):
        compare_page.read_selection(store, [])
    summary.unlink()
    with pytest.raises(InputError, match="no report.*diff-T-R-report"):
        compare_page.read_selection(store, [])


def read(base: Path, name: str) -> compare.Run:
    return compare.read_run(name, base / "results" / name, base / "results/eval/lm")


def test_within_an_epoch_unique_tokens_are_those_trained_on(base, tokenizer_folder):
    rows = make.random_rows(STEPS * BATCH * 2, 600, 0)
    corpus = make.save_corpus(base / "large", rows, tokenizer_folder)
    save_run(base, "short", corpus, np.ones(64))
    run = read(base, "short")
    assert (run.unique_tokens, run.unique_sequences, run.epochs) == (1234, STEPS * BATCH, 0.5)


def test_unequal_runs_are_named(base):
    save_run(base, "other", base / "corpus", np.ones(64), seed=11)
    runs = {name: read(base, name) for name in ("other", "control")}
    assert compare.unequal(runs, runs["control"]) == ["other and control differ in seed."]


def test_losses_of_another_model_are_refused(base):
    save_losses(base, "student", np.ones(64), "0" * 64)
    with pytest.raises(InputError, match="held-out losses .*results/student"):
        read(base, "student")


def test_a_damaged_result_is_an_input_error(base):
    path = base / "results/eval/lm/student.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match="no JSON .*student.json.*lm.sh"):
        read(base, "student")


def test_losses_of_other_sequences_are_refused(base):
    control, student = read(base, "control"), read(base, "student")
    student.result["corpus"] = {"fingerprint": "d"}
    with pytest.raises(InputError, match="different corpora"):
        compare.check_comparable(student, control, base)
    student.result["corpus"], student.losses = control.result["corpus"], np.ones(63)
    with pytest.raises(InputError, match="different numbers of sequences"):
        compare.check_comparable(student, control, base)
    control.losses = np.ones(1)
    with pytest.raises(InputError, match="one held-out sequence"):
        compare.check_comparable(control, control, base)


def test_an_array_that_does_not_fit_its_result_is_refused(base):
    np.save(base / "results/eval/lm/student.npy", np.ones(64))
    with pytest.raises(InputError, match="do not belong to the result"):
        read(base, "student")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runs", "student"], "--runs needs at least two runs"),
        (["--runs", RUNS, "--control", "nobody"], "--control nobody .*student, control"),
        (["--runs", "a=x,a=y,b=z"], "--runs names a run twice"),
    ],
)
def test_wrong_flags_are_explained(flags, message):
    from data_utils.flags import parse

    with pytest.raises(InputError, match=message):
        parse(compare.Settings, flags, positional="base_path")


def test_a_missing_result_ends_with_code_2_and_no_traceback(base):
    (base / "results/eval/lm/student.json").unlink()
    result = make.run("eval/compare.py", base, "--runs", RUNS, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("ERROR there are no held-out losses for student")
    assert "scripts/eval/lm.sh" in result.stderr and "Traceback" not in result.stderr


def test_stage_lists(tmp_path):
    path = tmp_path / "stages.tsv"
    path.write_text("Corpus\tplace\tcommand\t3.5\n")
    assert compare.read_stages(path) == [{"stage": "Corpus", "artefact": "place", "seconds": 3.5}]
    path.write_text("Corpus\tplace\t3\nnonsense\n")
    with pytest.raises(InputError, match="nonsense.*stages.tsv"):
        compare.read_stages(path)
