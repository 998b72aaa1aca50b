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
from reports import selection_report, selection_tables
from tests import make
from tests.reports.corpora import save_corpus

SOURCES = ["code", "<b>bold & brave</b>", "planted noise"]
UNDEFINED = (3, 77)
RATIO = 0.45
TABLES = ("sanity", "sources", "sweep", "examples")
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


def check_counts(case: Case, row: dict, mine: np.ndarray) -> None:
    """The columns of every table, about the rows `mine`, [n] bool, which have an r."""
    assert int(row["sequences"]) == mine.sum() and int(row["tokens"]) == case.lengths[mine].sum()
    values = {"r": case.r, "teacher_loss": -case.means["T"], "reference_loss": -case.means["R"]}
    for name, value in values.items():
        assert float(row[f"mean_{name}"]) == pytest.approx(value[mine].mean(), abs=1e-12)


def test_sources_table(case):
    rows, kept = case.table("sources"), case.kept(RATIO)
    for row in rows:
        every = case.domains == SOURCES.index(row["source"])
        mine = every & case.defined
        check_counts(case, row, mine)
        assert int(row["without_r"]) == (every & ~case.defined).sum()
        assert int(row["kept"]) == (mine & kept).sum()
        assert int(row["kept_tokens"]) == case.lengths[mine & kept].sum()
        assert float(row["keep_rate"]) == (mine & kept).sum() / mine.sum()
        assert float(row["share_before"]) == mine.sum() / case.defined.sum()
        assert float(row["share_after"]) == (mine & kept).sum() / kept.sum()
    rates = [float(row["keep_rate"]) for row in rows]
    assert len(rates) == 3 and rates == sorted(rates, reverse=True)


def test_sweep_table(case):
    rows = case.table("sweep")
    assert [float(row["alpha"]) for row in rows] == sorted([RATIO, *(i / 10 for i in range(1, 11))])
    for row in rows:
        kept = case.kept(float(row["alpha"]))
        assert float(row["threshold"]) == case.r[kept].min()
        check_counts(case, row, kept)
        for number, name in enumerate(SOURCES):
            share = (kept & (case.domains == number)).sum() / kept.sum()
            assert float(row[f"share {name}"]) == pytest.approx(share)


def test_summary(case):
    found, kept = json.loads((case.folder / "summary.json").read_text()), case.kept(RATIO)
    check_counts(case, found["all"], case.defined)
    check_counts(case, found["kept"], kept)
    assert found["threshold"] == case.r[kept].min() and found["without_r"] == len(UNDEFINED)
    assert found["share_r_below_0"] == np.mean(case.r[case.defined] < 0)


def test_examples_are_the_rows_at_their_ranks(case, tokenizer_folder):
    order = sorted(np.flatnonzero(case.defined), key=lambda i: (-case.r[i], i))
    tokenizer = load_tokenizer(tokenizer_folder)
    rows, n, half = case.table("examples"), len(order), len(case.rows) // 2
    keep = int(RATIO * n)
    ranks = [*range(4), *range(keep - 2, keep + 2), *range(n - 4, n)]
    assert [int(row["rank"]) - 1 for row in rows] == ranks
    places = [row["place"] for row in rows]
    assert places == ["top"] * 4 + ["at the threshold"] * 4 + ["bottom"] * 4
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
    assert page.count("data:image/png;base64,") == 3
    without_pictures = re.sub(r'src="data:[^"]*"', "", page)
    assert not re.search(r"<script|<link|src=|href=|https?:", without_pictures)
    kept = case.kept(RATIO)
    assert f"{kept.sum()} of {case.defined.sum()} sequences" in page
    for name in TABLES:
        assert f"{name}.csv" in page


def test_hostile_text_stays_text(tmp_path, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    hostile = "</pre><script>alert(1)</script>\x00\x1b[2J\u202eabc\r\n"
    rows = [np.array(tokenizer(f"{hostile}{i}")["input_ids"], np.int64) for i in range(4)]
    page = Case(tmp_path, rows, tokenizer_folder).draw(0.5)
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)


def test_pictures_are_drawn_from_a_sample(case, monkeypatch):
    """The tables stay exact, equal inputs give equal bytes."""
    exact = [(case.folder / f"{name}.csv").read_bytes() for name in TABLES]
    whole = case.draw(RATIO)
    monkeypatch.setattr(selection_tables, "SAMPLE", 100)
    pages = [case.draw(RATIO) for _ in range(2)]
    assert pages[0] == pages[1] != whole
    assert exact == [(case.folder / f"{name}.csv").read_bytes() for name in TABLES]


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
    make.run(PROGRAM, base, *NAMES, "--ratio", 0.3)
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


@pytest.mark.parametrize("empty", [(0, 1), (0,)])
def test_few_or_no_defined_rows(tmp_path, empty):
    case = Case(tmp_path, [np.array([1, 2, 3])] * 2, None, empty=empty)
    for ratio in (0.01, 0.5, 1.0):
        page = case.draw(ratio)
        assert ("None of the 2" in page) == (len(empty) == 2)
