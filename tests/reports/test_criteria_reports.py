"""The report of a selection by other criteria, and the figures beside the paper's.

.venv/bin/python -m pytest tests/reports/test_criteria_reports.py
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from data_utils import artefact
from miniplm import difference
from reports import selection_report, selection_sanity
from reports.files import read_csv
from tests import make
from tests.reports.test_selection_report import SOURCES, Case, case  # noqa: F401 (a fixture)

RATIO = 0.4


def report(case: Case, **choice: object) -> tuple[dict, list[dict], str]:  # noqa: F811
    """(summary, sources, page) of the report by a criterion."""
    settings = selection_report.Settings(**case.names, ratio=RATIO, **choice)
    selection_report.draw_report(settings)
    folder = selection_report.report_folder(case.folder.with_name("diff-T-R"), settings)
    rows = read_csv(folder / "sources.csv", ["source"])
    page = (folder / "report.html").read_text()
    return json.loads((folder / "summary.json").read_text()), rows, page


def test_by_source_keeps_the_shares(case):  # noqa: F811
    summary, rows, page = report(case, criterion="by_source")
    assert (case.folder.with_name("diff-T-R-report-by_source") / "sweep.csv").is_file()
    assert summary["criterion"] == "by_source" and summary["kept"]["sequences"] == int(RATIO * 298)
    for row in rows:
        assert abs(row["keep_rate"] - RATIO) * row["sequences"] < 2
    assert "by_source keeps" in page and "right of the line" not in page


@pytest.mark.parametrize("criterion", ["temperature", "external", "prior"])
def test_every_kind_of_criterion_has_a_report(criterion, case, tmp_path):  # noqa: F811
    """An external score of rows without an r does not make them rank."""
    more = {"tau": 0.5} if criterion == "temperature" else {}
    scores = np.arange(300.0)
    if criterion == "external":
        np.save(tmp_path / "s.npy", scores)
        more = {"score_file": str(tmp_path / "s.npy")}
    summary, rows, _ = report(case, criterion=criterion, **more)
    assert summary["all"]["sequences"] == 298 and summary["kept"]["sequences"] == int(RATIO * 298)
    assert summary["without_r"] == 2
    if criterion == "external":
        kept = np.flatnonzero(case.defined)[-int(RATIO * 298) :]
        mine = {row["source"]: row["kept"] for row in rows}
        for number, name in enumerate(SOURCES):
            assert mine[name] == (case.domains[kept] == number).sum()


def test_the_figures_of_the_paper_stand_beside_the_corpus_s_own(case):  # noqa: F811
    found, kept = report(case)[0]["sanity"], case.kept(0.5)
    assert found["below_0"] == np.mean(case.r[case.defined] < 0)
    assert found["threshold"] == case.r[kept].min() and found["agreement"] == {}
    rows = case.table("sanity")
    assert [row["paper"] for row in rows] == ["6.3 %", "between 0.07 and 1.02"]
    assert rows[0]["here"] == f"{100 * found['below_0']:.1f} %"


def test_agreement_with_a_second_reference(case):  # noqa: F811
    """The share of the sequences with an r that both keep or both drop, of the same teacher."""
    store, sums = case.folder.with_name("diff-T-R"), case.means["R"] * case.counts
    other = sums + np.random.default_rng(2).normal(size=300) * case.counts
    for name, values in (("R2", other), ("T2", case.means["T"] * case.counts + 1)):
        values = np.where(case.counts, values, 0)
        place = store.with_name(name)
        make.save_scores(place, case.base / "corpus", name, values, case.counts, shards=[0, 2])
    for teacher, ref in (("T", "R2"), ("T2", "R2")):
        names = case.names | {"teacher_name": teacher, "ref_name": ref}
        difference.compute(difference.Settings(**names, allow_weaker_teacher=True))
    r2 = np.load(store.with_name("diff-T-R2") / difference.FILE)
    order = sorted(np.flatnonzero(case.defined), key=lambda i: (-r2[i], i))
    theirs = np.zeros(300, bool)
    theirs[order[: len(order) // 2]] = True
    share = (theirs == case.kept(0.5))[case.defined].mean()
    found = report(case)[0]["sanity"]["agreement"]
    assert found == {"R2": pytest.approx(share)} and 0.5 < share < 1
    (row,) = selection_sanity.table({"below_0": 0, "threshold": 0, "agreement": found})[2:]
    assert row["paper"] == "80.6 / 87.4 / 89.5 % (45M / 104M / 200M with a 500M)"
    # Of another corpus or other shards it is no second reference of these sequences.
    manifest = artefact.read_manifest(store.with_name("diff-T-R2"))
    replace(manifest, content={**manifest.content, "shards": [0, 1]}).write()
    assert report(case)[0]["sanity"]["agreement"] == {}
