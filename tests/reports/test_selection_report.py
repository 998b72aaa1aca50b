"""The selection's report: figures recomputed from the scores, and the page.

.venv/bin/python -m pytest tests/reports/test_selection_report.py
"""

import csv
import html
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_utils.errors import InputError
from data_utils.tokenizer import load_tokenizer
from miniplm import difference
from reports import selection_pool, selection_report
from reports.selection_pool import length_limits
from tests import make
from tests.reports.corpora import save_corpus

SOURCES = ["code", "<b>bold & brave</b>", "planted noise"]
UNDEFINED = (3, 77)
RATIO = 0.45
PROGRAM = "scripts/miniplm/difference_sampling/compute_difference_scores.py"
NAMES = ["--scores", "scores", "--teacher-name", "T", "--ref-name", "R"]


class Case:
    """A corpus of two shards with scores, and its report."""

    def __init__(self, base: Path, rows: list, tokenizer: Path | None, domains=None, empty=()):
        generator = np.random.default_rng(5)
        self.base, self.rows, self.domains, count = base, rows, domains, len(rows)
        corpus = save_corpus(base / "corpus", rows, SOURCES, domains, tokenizer=tokenizer, shards=2)
        self.counts = np.array([len(row) - 1 for row in rows], np.int32)
        self.counts[list(empty)] = 0
        self.lengths = np.array([len(row) for row in rows])
        losses = np.round(generator.normal(3, 0.5, count), 1)  # rounded: r has ties
        losses = {"T": losses, "R": losses + np.round(generator.normal(2, 1, count), 1)}
        self.means = {}
        with np.errstate(invalid="ignore", divide="ignore"):
            for name, loss in losses.items():
                sums = (-loss * self.counts).astype(np.float32)
                place = base / "scores" / name
                make.save_scores(place, corpus, name, sums, self.counts, shards=[0, 2])
                self.means[name] = sums.astype(np.float64) / self.counts
        self.r = self.means["T"] - self.means["R"]
        self.defined = self.counts > 0
        settings = {"base_path": str(base), "scores": "scores"}
        self.names = {**settings, "teacher_name": "T", "ref_name": "R"}
        difference.compute(difference.Settings(**self.names))
        self.folder = base / "scores/diff-T-R-report"
        self.draw(RATIO)

    def draw(self, ratio: float) -> str:
        """Write the report; its page."""
        selection_report.draw_report(selection_report.Settings(**self.names, ratio=ratio))
        return (self.folder / "report.html").read_text()

    def kept(self, ratio: float) -> np.ndarray:
        """Mask of the kept rows by a full sort: highest r first, ties by row."""
        order = sorted(np.flatnonzero(self.defined), key=lambda i: (-self.r[i], i))
        mask = np.zeros(len(self.r), bool)
        mask[order[: int(np.floor(ratio * self.defined.sum()))]] = True
        return mask

    def table(self, name: str) -> list[dict]:
        with open(self.folder / f"{name}.csv", newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def case(tmp_path_factory, tokenizer_folder) -> Case:
    generator = np.random.default_rng(5)
    rows = [generator.integers(1, 600, generator.integers(2, 66)) for _ in range(300)]
    domains = generator.choice(3, 300, p=[0.5, 0.2, 0.3])
    return Case(tmp_path_factory.mktemp("report"), rows, tokenizer_folder, domains, UNDEFINED)


def check_group(case: Case, row: dict, mine: np.ndarray) -> None:
    """A table's row about the sequences `mine`, [n] bool."""
    kept, mine, without = case.kept(RATIO), mine & case.defined, mine & ~case.defined
    assert int(row["sequences"]) == mine.sum() and int(row["without_r"]) == without.sum()
    assert int(row["tokens"]) == case.lengths[mine].sum()
    assert int(row["kept"]) == (mine & kept).sum()
    assert int(row["kept_tokens"]) == case.lengths[mine & kept].sum()
    assert float(row["keep_rate"]) == (mine & kept).sum() / mine.sum()
    assert float(row["share_before"]) == mine.sum() / case.defined.sum()
    assert float(row["share_after"]) == (mine & kept).sum() / kept.sum()
    for name, values in (("teacher_loss", -case.means["T"]), ("reference_loss", -case.means["R"])):
        assert float(row[f"mean_{name}"]) == pytest.approx(values[mine].mean(), abs=1e-12)
    assert float(row["mean_r"]) == pytest.approx(case.r[mine].mean(), abs=1e-12)


def test_tables_by_source_and_length(case):
    rows = case.table("sources")
    for row in rows:
        check_group(case, row, case.domains == SOURCES.index(row["source"]))
    rates = [float(row["keep_rate"]) for row in rows]
    assert len(rates) == 3 and rates == sorted(rates, reverse=True)
    rows = case.table("lengths")
    for row in rows:
        low, _, high = row["tokens_per_sequence"].partition("–")
        low, high = (65, 65) if "full" in low else (int(low), int(high))
        check_group(case, row, (case.lengths >= low) & (case.lengths <= high))
    assert sum(int(row["sequences"]) for row in rows) == case.defined.sum()
    assert length_limits(1025).tolist() == [128, 256, 384, 512, 640, 768, 896, 1024, 1025]


def test_sweep_table(case):
    rows = case.table("sweep")
    assert [float(row["alpha"]) for row in rows] == sorted([RATIO, *(i / 10 for i in range(1, 11))])
    for row in rows:
        kept = case.kept(float(row["alpha"]))
        assert float(row["threshold"]) == case.r[kept].min()
        assert int(row["sequences"]) == kept.sum()
        assert int(row["tokens"]) == case.lengths[kept].sum()
        for number, name in enumerate(SOURCES):
            share = (kept & (case.domains == number)).sum() / kept.sum()
            assert float(row[f"share {name}"]) == pytest.approx(share)


def test_summary(case):
    found, kept = json.loads((case.folder / "summary.json").read_text()), case.kept(RATIO)
    assert found["kept"] == kept.sum() and found["kept_tokens"] == case.lengths[kept].sum()
    assert found["threshold"] == case.r[kept].min() and found["without_r"] == len(UNDEFINED)
    known = case.r[case.defined]
    expected = np.corrcoef(known, case.means["T"][case.defined])[0, 1]
    assert found["correlation_with_teacher"] == pytest.approx(expected)
    assert found["mean_r_dropped"] == pytest.approx(case.r[case.defined & ~kept].mean())
    assert found["share_r_above_0"] == np.mean(known > 0)


def test_examples_are_the_rows_at_their_ranks(case, tokenizer_folder):
    order = sorted(np.flatnonzero(case.defined), key=lambda i: (-case.r[i], i))
    tokenizer = load_tokenizer(tokenizer_folder)
    rows, n, half = case.table("examples"), len(order), len(case.rows) // 2
    places = {row["place"]: int(row["rank"]) for row in reversed(rows)}
    assert places["10 % from the top"] == int(0.1 * n) + 1
    assert rows[0]["place"] == "top, 0.1 % from the top"
    assert rows[-1]["place"] == "bottom" and int(rows[-1]["rank"]) == n
    for row in rows:
        i = order[int(row["rank"]) - 1]
        assert int(row["row"]) == i and float(row["r"]) == case.r[i]
        assert (row["shard"], int(row["row_in_shard"])) == (f"data_{i // half}", i % half)
        assert row["source"] == SOURCES[case.domains[i]]
        assert bool(int(row["kept"])) == case.kept(RATIO)[i]
        assert float(row["reference_loss"]) == -case.means["R"][i]
        plain = tokenizer.decode(case.rows[i].tolist()).replace("\r\n", "\n")
        same = [a == b for a, b in zip(row["text"], plain, strict=True) if a != "\ufffd"]
        assert all(same) and len(same) > 0


def test_the_page_is_escaped_and_needs_nothing_else(case):
    page = (case.folder / "report.html").read_text()
    assert "<b>bold" not in page and html.escape(SOURCES[1]) in page
    assert page.count("data:image/png;base64,") == 5
    without_pictures = re.sub(r'src="data:[^"]*"', "", page)
    assert not re.search(r"<script|<link|src=|href=|https?:", without_pictures)
    kept = case.kept(RATIO)
    assert f"{kept.sum()} of {case.defined.sum()} sequences are kept" in page
    for name in ("sources", "lengths", "sweep", "examples"):
        assert f"{name}.csv" in page


def test_hostile_text_stays_text(tmp_path, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    hostile = "</pre><script>alert(1)</script>\x00\x1b[2J\u202eabc\r\n"
    rows = [np.array(tokenizer(f"{hostile}{i}")["input_ids"], np.int64) for i in range(4)]
    page = Case(tmp_path, rows, tokenizer_folder).draw(0.5)
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)


def test_pictures_are_drawn_from_a_sample(case, monkeypatch):
    """The tables stay exact, equal inputs give equal bytes, and the page says what is sampled."""
    tables = ("sources", "lengths", "sweep", "examples")
    exact = [(case.folder / f"{name}.csv").read_bytes() for name in tables]
    monkeypatch.setattr(selection_pool, "SAMPLE", 100)
    monkeypatch.setattr(selection_pool, "PIECE", 70)
    pages = [case.draw(RATIO) for _ in range(2)]
    assert pages[0] == pages[1] and re.search(r"sample of (98|99|100) sequences", pages[0])
    assert exact == [(case.folder / f"{name}.csv").read_bytes() for name in tables]


def test_the_program_and_another_ratio(case, tmp_path):
    """The scores are not computed again; a report that fails leaves them; it alone can be drawn."""
    base = tmp_path / case.base.name
    shutil.copytree(case.base, base)
    shutil.rmtree(base / "scores/diff-T-R-report")
    shutil.rmtree(base / "scores/diff-T-R")
    (base / "scores/diff-T-R-report").write_text("in the way")
    failed = make.run(PROGRAM, base, *NAMES, check=False)
    assert failed.returncode != 0
    difference_file = base / "scores/diff-T-R/difference.npy"
    made = difference_file.stat().st_mtime_ns
    (base / "scores/diff-T-R-report").unlink()
    page = base / "scores/diff-T-R-report/report.html"
    result = make.run(PROGRAM, base, *NAMES, "--ratio", RATIO)
    assert "is there already" in result.stdout and str(page) in result.stdout
    assert page.read_text() == case.draw(RATIO)
    make.run("reports/selection_report.py", base, *NAMES, "--ratio", 0.3)
    assert f"{math.floor(0.3 * case.defined.sum())} of 298 sequences" in page.read_text()
    assert difference_file.stat().st_mtime_ns == made
    wrong = make.run(PROGRAM, base, *NAMES, "--ratio", 1.5, check=False)
    assert wrong.returncode == 2 and "--ratio" in wrong.stderr


def test_scores_that_were_made_again_are_refused(case, tmp_path):
    shutil.copytree(case.base, tmp_path / "base")
    folder = tmp_path / "base/scores/R"
    shutil.rmtree(folder)
    sums = np.arange(300.0)
    corpus = tmp_path / "base/corpus"
    make.save_scores(folder, corpus, "R", -sums, np.full(300, 5), shards=[0, 2])
    names = {**case.names, "base_path": str(tmp_path / "base")}
    with pytest.raises(InputError, match="scores/R"):
        selection_report.draw_report(selection_report.Settings(**names))


def test_a_corpus_without_domains_and_tokenizer(case, tmp_path):
    case = Case(tmp_path, case.rows, None)
    (row,) = case.table("sources")
    assert row["source"] == "unknown" and int(row["sequences"]) == case.defined.sum()
    first = case.table("examples")[0]
    ids = " ".join(map(str, case.rows[int(first["row"])].tolist()))
    assert first["text"] == f"token ids {ids}"
    assert "does not say which source" in (case.folder / "report.html").read_text()


@pytest.mark.parametrize("empty", [(0, 1), (0,)])
def test_few_or_no_defined_rows(tmp_path, empty):
    case = Case(tmp_path, [np.array([1, 2, 3])] * 2, None, empty=empty)
    for ratio in (0.01, 0.5, 1.0):
        page = case.draw(ratio)
        assert ("None of the 2 sequences" in page) == (len(empty) == 2)
