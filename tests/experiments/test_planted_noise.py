"""experiments/planted_noise/results.py: intervals, keep rates and gains from hand-made artefacts.

.venv/bin/python -m pytest tests/experiments/test_planted_noise.py
"""

import math
from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from experiments.planted_noise import results
from experiments.planted_noise.results import BOILERPLATE, NOISE, ORDINARY
from miniplm import difference
from reports import selection_report
from reports.files import read_csv
from tests import make
from tests.eval.test_compare import save_losses, save_run
from tests.reports.corpora import save_corpus

NAME, TEACHER, REFERENCE = results.CORPUS, *results.DIFFERENCE.split("-")[1:]
HELD_OUT = 16
DOMAINS = ["A", "B", NOISE, BOILERPLATE]
SCORES = "results/scores"


def make_corpus(folder: Path, domains: list[int], **more) -> Path:
    """A corpus of random rows of these domains."""
    rows = make.random_rows(len(domains), 600, 0, seed=len(folder.parts[-2]))
    return save_corpus(folder, rows, DOMAINS, domains, **more)


def save_selection(base: Path, name: str, domains: list[int], kept: list[int]) -> Path:
    """A corpus of two shards, scores of the first, which select the rows `kept`, and this half."""
    place = base / "processed_data/pretrain"
    corpus = make_corpus(place / name / NAME, domains, shards=2)
    store, rows = base / SCORES / name / NAME, np.arange(len(domains) // 2)
    reference = 3 + np.isin(rows, kept) - rows / 100
    for model, losses in ((TEACHER, np.full(len(rows), 2.0)), (REFERENCE, reference)):
        make.save_scores(store / model, corpus, model, -5 * losses, [5] * len(rows))
    names = {"base_path": str(base), "scores": f"{SCORES}/{name}/{NAME}"}
    names |= {"teacher_name": TEACHER, "ref_name": REFERENCE}
    difference.compute(difference.Settings(**names))
    ratio = len(kept) / len(rows)
    selection_report.draw_report(selection_report.Settings(**names, ratio=ratio))
    inputs = {"scores": (store, artefact.identity(store / results.DIFFERENCE, "scores", ""))}
    return make_corpus(
        place / f"{name}-better_half" / NAME,
        [domains[row] for row in kept],
        source_row=kept,
        inputs=inputs,
    )


@pytest.fixture
def base(tmp_path) -> Path:
    """The experiment with one share (0.3) and two seeds: gains of 0.1 and 0.3 a sequence."""
    base = tmp_path / "with space"
    domains = ([0] * 6 + [2] * 2 + [3] * 2) * 8
    save_selection(base, "planted", domains, [10, 11, 14, 17, 20, 21, 29, 38])
    better = save_selection(base, "noise-0.3", ([1] * 7 + [2] * 3) * 8, [14, 17, 20, 21])
    random_half = make_corpus(base / "processed_data/pretrain/random" / NAME, [1, 2, 2, 1])
    held_out = Corpus(make_corpus(base / "held_out", [0, 1] * (HELD_OUT // 2)))
    wave = np.sin(np.arange(HELD_OUT))
    for seed, gain in ((1, 0.1), (2, 0.3)):
        for half, corpus, losses in (
            ("better", better, 7 + 0 * wave),
            ("random", random_half, 7 + gain + 0.01 * wave),
        ):
            name = f"noise-0.3-{half}_half-seed{seed}"
            save_run(base, name, corpus, losses, seed)
            model = artefact.identity(base / "results" / name, "model", "")["fingerprint"]
            save_losses(base, name, losses, model, held_out.identity["fingerprint"])
    (base / "results/students").symlink_to(".")
    return base


FLAGS = ["--shares", "0.3", "--seeds", "1", "2"]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # k = 0 and k = n by hand: z^2 / (n + z^2) and n / (n + z^2)
        (0, 205, 0.0, 0.01839),
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I
        (1, 29, 0.0061, 0.1718),  # the same
        (20, 20, 0.83887, 1.0),
    ],
)
def test_wilson(successes, trials, low, high):
    assert results.wilson(successes, trials) == pytest.approx((low, high), abs=6e-5)


def test_keep_rates_count_scored_rows_only(base):
    rates = {row["source"]: row for row in results.keep_rates(base, "planted")}
    counts = {source: (row["sequences"], row["kept"]) for source, row in rates.items()}
    assert counts == {ORDINARY: (24, 5), "A": (24, 5), NOISE: (8, 1), BOILERPLATE: (8, 2)}
    rows = np.array([6, 7, 16, 17, 26, 27, 36, 37])
    assert rates[NOISE]["mean_r"] == pytest.approx((1 - rows / 100).mean() + 1 / 8, abs=1e-6)
    assert rates[NOISE]["keep_rate"] == 1 / 8


def test_the_program_writes_and_prints_all_of_it(base):
    result = make.run("experiments/planted_noise/results.py", base, *FLAGS)
    save = base / "results/planted_noise"
    (row,) = read_csv(save / "gain.csv")
    assert row["noise"] == 0.3
    assert row["gain"] == pytest.approx(0.2 + 0.01 * np.sin(np.arange(HELD_OUT)).mean())
    assert row["seed 2"] - row["seed 1"] == pytest.approx(0.2)
    half = 12.706 * 0.2 / math.sqrt(2) / math.sqrt(2)  # Student's t of one degree of freedom
    assert row["seed_high"] - row["gain"] == pytest.approx(half, rel=1e-3)
    assert row["low"] < row["gain"] < row["high"] and row["high"] - row["low"] < 0.02
    rates = read_csv(save / "keep_rates.csv", ["source"])
    assert {r["source"] for r in rates} == {ORDINARY, NOISE, BOILERPLATE, "A"}
    page = (save / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "http" not in page
    assert (save / "gain.png").read_bytes()[:4] == b"\x89PNG"
    for words in ("the better half is ahead", "Seeds alone", f"Of {NOISE} 12.5 % is kept"):
        assert words in result.stdout and words in page, words


def test_findings_follow_the_intervals():
    def group(source, kept, sequences):
        return results.keep_row(source, [{"kept": kept, "sequences": sequences, "mean_r": 0.0}])

    rates = [group(ORDINARY, 1000, 1638), group(NOISE, 0, 205), group(BOILERPLATE, 120, 205)]
    noise, boilerplate = results.keep_findings(rates)
    assert "not clearly" not in noise and "not clearly" in boilerplate


def test_a_half_of_other_scores_is_refused(base):
    place = base / "processed_data/pretrain"
    (place / "planted-better_half").rename(place / "old")
    (place / "noise-0.3-better_half").rename(place / "planted-better_half")
    with pytest.raises(InputError, match="planted-better_half"):
        results.keep_rates(base, "planted")


def test_an_unfinished_experiment_ends_with_one_message(base):
    (base / "results/eval/lm/noise-0.3-random_half-seed2.json").unlink()
    result = make.run("experiments/planted_noise/results.py", base, *FLAGS, check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "noise-0.3-random_half-seed2.json" in result.stderr
