"""eval/compare.py: the paired interval, the verdicts, the tables, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output
from data_utils.atomic_files import sha256
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from eval import compare, comparisons
from eval.runs import read_runs
from miniplm import difference
from reports import selection_report, terminal
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
    counts = {"step": STEPS, "sequences": STEPS * BATCH, "tokens": 1234}
    counts |= {"student_flops": 1.5e12, "teacher_flops": 0.0}
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
        "bits_per_byte": 1.25,
    }
    atomic_files.write_json(folder / f"{name}.json", result)


@pytest.fixture
def base(tmp_path, tokenizer_folder) -> Path:
    """BASE PATH with a corpus, a run on it that is better by 0.1, and a control."""
    base = tmp_path / "with space"
    corpus = make.save_corpus(base / "corpus", make.random_rows(ROWS, 600, 0), tokenizer_folder)
    generator = np.random.default_rng(0)
    control = generator.normal(7, 1, 64)
    save_run(base, "control", corpus, control)
    save_run(base, "student", corpus, control - 0.1 + generator.normal(0, 0.05, 64))
    return base


RUNS = {"student": "results/student", "control": "results/control"}
FLAG = ",".join(f"{name}={folder}" for name, folder in RUNS.items())


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
    ("difference", "half", "beats", "chance", "side"),
    [
        (-0.1, 0.01, True, False, "lower"),
        (0.1, 0.01, False, False, "higher"),
        (-0.01, 0.02, False, True, "lower"),
    ],
)
def test_verdict_follows_the_sign_and_the_interval(difference, half, beats, chance, side):
    said = compare.verdict("s", "c", difference, difference - half, difference + half)
    assert ("ahead" in said, "not beat" in said) == (beats, not beats)
    assert ("includes 0" in said) == chance and f"{abs(difference):.3f}" in said and side in said


SCORES = {"scores": "scores", "teacher_name": "T", "ref_name": "R"}


def save_store(base: Path) -> Path:
    """A difference store with its report: of 20 rows, the odd ones (source B) have the higher r."""
    for name, means in (("T", np.arange(ROWS) % 2 - 8.0), ("R", np.full(ROWS, -9.0))):
        make.save_scores(base / "scores" / name, base / "corpus", name, means * 5, [5] * ROWS)
    difference.compute(difference.Settings(base_path=str(base), **SCORES))
    selection_report.draw_report(selection_report.Settings(base_path=str(base), **SCORES))
    return base / "scores/diff-T-R"


def test_the_program_prints_and_writes_all_of_it(base):
    save_store(base)
    (base / "stages.tsv").write_text("Corpus\tprocessed\tmake <it>\t12\nTrain\tresults\trun\t75\n")
    flags = ("--runs", FLAG, "--scores", "scores/diff-T-R", "--stages", "stages.tsv")
    result = make.run("eval/compare.py", base, *flags, "--report", "out/report.html")
    page = (base / "out/report.html").read_text()
    for words in ("student is ahead of control", "0:01:27", "100.0 %", "1.50e+12"):
        assert words in result.stdout and words in page, words
    assert "http" not in page and "<script" not in page


def test_the_rows_of_the_table(base, tokenizer_folder):
    save_run(base, "same", base / "corpus", np.full(64, 7.5))
    long = make.save_corpus(
        base / "l", make.random_rows(STEPS * BATCH * 2, 600, 0), tokenizer_folder
    )
    save_run(base, "short", long, np.ones(64), seed=11)
    names = ("student", "short", "same")
    runs = read_runs(base, {name: f"results/{name}" for name in names})
    student, short, control = (compare.row(run, runs[-1]) for run in runs)
    losses = np.load(base / "results/eval/lm/student.npy")
    assert student["difference"] == pytest.approx(losses.mean() - 7.5)
    assert control["difference"] == control["low"] == control["high"] == 0
    assert student["steps"] == STEPS and student["epochs"] == pytest.approx(STEPS * BATCH / ROWS)
    # More than one epoch: the whole corpus. Less: what was trained on.
    lengths = Corpus(base / "corpus").lengths(np.arange(ROWS))
    assert student["unique_tokens"] == lengths.sum()
    assert (short["unique_tokens"], short["epochs"]) == (1234, 0.5)
    assert len(compare.findings(runs[0], runs[2])) == 1
    unequal = compare.findings(runs[1], runs[2])[1]
    assert "short" in unequal and "unique sequences, seed" in unequal


def test_a_run_with_other_tokens_has_a_row_and_no_difference(base, tmp_path):
    tokenizer = make.train_tokenizer(tmp_path / "t", make.documents(20), 500)
    corpus = make.save_corpus(base / "converted", make.random_rows(ROWS, 500, 0), tokenizer)
    losses = np.full(40, 5.0)
    save_run(base, "other", corpus, losses)
    manifest = json.loads((base / "results/other/manifest.json").read_text())
    save_losses(base, "other", losses, manifest["fingerprint"], corpus="converted held out")
    result = make.run("eval/compare.py", base, "--runs", f"other=results/other,{FLAG}")
    line = next(line for line in result.stdout.splitlines() if line.startswith("other "))
    assert line.split()[4:] == ["5.000", "1.250", "–", "–", "–", "1.50e+12", "0.00e+00", "1.50e+12"]
    assert "* other has other tokens than control" in result.stdout
    assert "student is ahead of control" in result.stdout


def test_a_report_of_other_scores_is_refused(base):
    store = save_store(base)
    assert [row["source"] for row in compare.read_selection(store)] == ["B", "A"]
    summary = base / "scores/diff-T-R-report/summary.json"
    summary.write_text(summary.read_text().replace('"scores": "', '"scores": "0'))
    with pytest.raises(InputError, match="diff-T-R-report.*compute_difference_scores.py"):
        compare.read_selection(store)
    summary.unlink()
    with pytest.raises(InputError, match="diff-T-R-report.*compute_difference_scores.py"):
        compare.read_selection(store)


@pytest.mark.parametrize(
    ("model", "corpus", "count"),
    [("0" * 64, "c", 64), ("", "d", 64), ("", "c", 63)],
)
def test_losses_of_other_models_or_sequences_are_refused(base, model, corpus, count):
    path = base / "results/eval/lm/student.json"
    model = model or json.loads(path.read_text())["model"]["fingerprint"]
    save_losses(base, "student", np.ones(count), model, corpus)
    with pytest.raises(InputError, match="student.json.*lm.sh"):
        read_runs(base, RUNS)


def test_damaged_results_are_refused(base):
    path = base / "results/eval/lm/student.json"
    np.save(path.with_suffix(".npy"), np.ones(64))
    with pytest.raises(InputError, match="student.json.*lm.sh"):
        read_runs(base, RUNS)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match="student.json.*lm.sh"):
        read_runs(base, RUNS)


def test_one_sequence_gives_no_interval(base):
    save_run(base, "one", base / "corpus", np.ones(1))
    with pytest.raises(InputError, match="one.json"):
        read_runs(base, {"one": "results/one"})


def save_curve(base: Path, name: str, losses: list[float]) -> None:
    rows = [
        {"step": step, "tokens": 200 * step, "valid_loss": loss}
        for step, loss in enumerate(losses, 1)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (base / "results" / name / "metrics.jsonl").write_text(lines)


def test_where_a_run_reaches_the_control_s_loss(base):
    save_curve(base, "control", [6.0, 5.0, 4.0])
    save_curve(base, "student", [5.0, 4.0, 3.0])
    table = comparisons.curves(read_runs(base, RUNS))[3]
    student, control = table.rows
    assert (student["steps"], control["steps"]) == (2, 3)
    assert student["share"] == pytest.approx(2 / 3) and control["share"] == 1
    assert student["flops"] == pytest.approx(1.5e12 * 400 / 1234)  # save_run: for 1,234 tokens
    save_curve(base, "student", [9.0, 8.0])
    table = comparisons.curves(read_runs(base, RUNS))[3]
    assert np.isnan(table.rows[0]["steps"]) and "nan" not in terminal.table(*table[:2])


def test_how_many_times_the_steps_the_one_behind_needs(base):
    student, control = read_runs(base, RUNS)
    assert comparisons.steps_needed(student, control) == []  # no curves
    save_curve(base, "control", [6.0, 5.0, 4.5, 4.0])
    save_curve(base, "student", [5.0, 4.0, 3.0, 2.0])
    for pair in ((student, control), (control, student)):
        (words,) = comparisons.steps_needed(*pair)
        assert words.startswith("control needs 2.0 times the steps: student reaches")
        assert "(4.000, after 4 steps) after 2." in words


def test_the_control_s_loss_where_it_had_cost_as_much(base):
    """Between two of its points linearly, with what a teacher did before the first step."""
    save_curve(base, "control", [6.0, 5.0, 4.0])
    save_curve(base, "student", [5.5, 4.5])
    runs = read_runs(base, RUNS)
    student, control = comparisons.curves(runs)[-1].rows
    assert (student["loss"], student["control"], student["difference"]) == (4.5, 5.0, -0.5)
    assert (control["control"], control["difference"]) == (4.0, 0.0)
    found = comparisons.curve_of(runs[0]), comparisons.curve_of(runs[1])
    a_step = 1.5e12 * 200 / 1234
    for before, expected in ((0.5 * a_step, 4.5), (0.9 * a_step, 4.1), (1.1 * a_step, np.nan)):
        dearer = replace(found[0], flops=found[0].flops + before)
        row = comparisons.at_equal_flops("student", dearer, found[1])
        assert row["flops"] == pytest.approx(2 * a_step + before)
        assert row["control"] == pytest.approx(expected, nan_ok=True)
    nowhere = replace(found[1], flops=found[1].flops * np.nan)
    assert np.isnan(comparisons.at_equal_flops("student", found[0], nowhere)["control"])


def test_runs_that_differ_by_seed_are_one_row(base):
    for seed, mean in ((10, 7.0), (11, 7.5), (12, 7.25)):
        save_run(base, f"of {seed}", base / "corpus", np.full(64, mean), seed=seed)
    names = ["of 10", "of 11", "of 12"]
    runs = read_runs(base, {n: f"results/{n}" for n in names})
    runs[1].manifest.counts["teacher_flops"] = 3e12
    *_, table = comparisons.over_seeds(base, runs)
    (row,) = table.rows
    assert (row["students"], row["seeds"]) == ("of 10, of 11, of 12", 3)
    assert (row["mean"], row["deviation"]) == pytest.approx((7.25, 0.25))
    half = 4.303 * 0.25 / np.sqrt(3)  # Student's t of two degrees of freedom
    assert (row["low"], row["high"]) == pytest.approx((7.25 - half, 7.25 + half), rel=1e-4)
    assert (row["student_flops"], row["teacher_flops"], row["flops"]) == (1.5e12, 1e12, 2.5e12)
    assert np.isnan(row["tasks"]) and "nan" not in terminal.table(*table[:2])
    a_step = 1.5e12 * 200 / 1234  # of save_run and save_curve
    for name in ("of 11", "of 12"):  # the control and one of the others
        save_curve(base, name, [8.0 - step for step in range(12)])
    (row,) = comparisons.over_seeds(base, runs)[-1].rows
    assert row["control"] == pytest.approx(8 - (2.5e12 / a_step - 1))
    runs[0].manifest.counts["teacher_flops"] = None
    assert comparisons.over_seeds(base, runs)[-1].rows[0]["flops"] == "unknown"
    (settings,) = comparisons.differing_settings(
        read_runs(base, {n: f"results/{n}" for n in names})
    )[1].rows
    assert settings == {"setting": "seed", "of 10": "10", "of 11": "11", "of 12": "12"}


def test_corpora_made_of_different_selections_are_no_seeds(base, tokenizer_folder):
    """Conversions of two selections have the same settings: what they were made from decides."""
    rows = make.random_rows(ROWS, 600, 0)
    for number, criterion in enumerate(("difference", "random", "random")):
        chosen = Output(
            base / f"chosen {number}",
            "corpus",
            "tests",
            {"criterion": criterion, "seed": number},
            {},
        )
        identity = chosen.begin().finish([], {"sequences": ROWS}).identity
        make.save_corpus(base / f"converted {number}", rows, tokenizer_folder)
        path = base / f"converted {number}/manifest.json"
        manifest = json.loads(path.read_text())
        manifest["inputs"] = {"corpus": identity | {"path": f"../chosen {number}"}}
        made = artefact.Manifest(
            folder=path.parent, **{k: v for k, v in manifest.items() if k != "fingerprint"}
        )
        made.write()
        save_run(base, f"of {number}", path.parent, np.full(64, 7.0 + number), seed=number)
    names = [f"of {number}" for number in range(3)]
    runs = read_runs(base, {name: f"results/{name}" for name in names})
    (row,) = comparisons.over_seeds(base, runs)[-1].rows
    assert row["students"] == "of 1, of 2"


def test_task_results_belong_to_weights_and_the_best_is_marked(base):
    folder = base / "results/eval/harness"
    folder.mkdir()
    for name, value in (("student", 0.5), ("control", 0.25)):
        weights = sha256(base / "results" / name / "model.safetensors")
        tasks = {"piqa": {"value": value, "stderr": 0.01}}
        result = {"model": {"weights": weights}, "tasks": tasks}
        result["average"] = {"value": value, "stderr": None}
        (folder / f"of {name}.json").write_text(json.dumps(result))
    (folder / "x.lm_eval.json").write_text("{}")
    _, table, _ = comparisons.tasks(base, read_runs(base, RUNS))
    shown = [(row["student"], row["piqa"], row["average"]) for row in table.rows]
    assert shown == [("student", "50.0 ± 1.0 *", "50.0 *"), ("control", "25.0 ± 1.0", "25.0")]


def test_the_paper_s_figures_stand_beside_its_sizes(base):
    run = read_runs(base, RUNS)[0]
    run.folder = base / "results/miniplm/qwen/500M"
    _, table = comparisons.printed([run])
    assert {"method": "miniplm", "size": "qwen/500M", "accuracy": "44.8", "loss": ""} in table.rows
    run.folder = base / "results/pretrain/mamba/130M"
    _, table = comparisons.printed([run])
    assert [row["loss"] for row in table.rows] == ["3.24", "3.27", "3.15"]
    assert comparisons.printed(read_runs(base, RUNS)) == []


FORMS = ["", "student", "student=x", "a=x,a=y,b=z", "a=x,b="]
NAMES = [f"ok=x,{name}=y" for name in ("a/b", "..", "-x", "a\nb")]


@pytest.mark.parametrize("runs", [*FORMS, *NAMES], ids=ascii)
def test_wrong_runs_are_explained(runs):
    assert compare.Settings(runs="a b=x/y,c=z").folders == {"a b": "x/y", "c": "z"}
    with pytest.raises(ValueError, match="--runs"):
        compare.Settings(runs=runs)


def test_a_missing_result_ends_with_code_2_and_no_traceback(base):
    (base / "results/eval/lm/student.json").unlink()
    result = make.run("eval/compare.py", base, "--runs", FLAG, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("ERROR ") and "student.json" in result.stderr
    assert "scripts/eval/lm.sh" in result.stderr and "Traceback" not in result.stderr
