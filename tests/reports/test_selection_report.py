"""The selection's report: figures recomputed from the scores, its page, its limits in memory."""

import csv
import html
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.shards import write_shard
from data_utils.tokenizer import copy_tokenizer, load_tokenizer
from miniplm import ranking
from reports.selection_report import write_report
from reports.selection_sums import bin_of, equal_bins, length_limits

SOURCES = ["code", "<b>bold & brave</b>", "planted noise"]
UNDEFINED = (3, 77)
RATIO = 0.4


def save_corpus(
    folder: Path, rows: list[np.ndarray], tokenizer: Path | None, domains: np.ndarray | None
) -> Path:
    """A finished corpus of two shards."""
    output = Output(folder, "corpus", "tests", {"max_length": 65, "eos_id": 0}, {}).begin()
    files, half = [], len(rows) // 2
    for shard, part in enumerate((slice(0, half), slice(half, None))):
        lengths = np.array([len(row) for row in rows[part]])
        write_shard(folder / f"data_{shard}", lengths, rows[part], np.dtype("<u2"))
        files += [f"data_{shard}.bin", f"data_{shard}.idx"]
        if domains is not None:
            np.save(folder / f"domain_{shard}.npy", domains[part])
            files.append(f"domain_{shard}.npy")
    if tokenizer is not None:
        files += copy_tokenizer(tokenizer, folder / "tokenizer")
    counts = {"sequences": len(rows), "domains": [] if domains is None else SOURCES}
    output.finish(files, counts)
    return folder


class Case:
    """A small corpus with scores and its report."""

    def __init__(self, folder: Path, tokenizer: Path | None, with_domains: bool = True):
        generator = np.random.default_rng(5)
        count = 300
        self.rows = make_rows(generator, count)
        self.domains = generator.choice(3, count, p=[0.5, 0.2, 0.3]).astype(np.uint8)
        corpus = save_corpus(
            folder / "corpus", self.rows, tokenizer, self.domains if with_domains else None
        )
        self.counts = np.array([len(row) - 1 for row in self.rows], np.int32)
        self.counts[list(UNDEFINED)] = 0
        self.lengths = np.array([len(row) for row in self.rows])
        teacher = np.round(generator.normal(3, 0.5, count), 1)  # rounded: r has ties
        reference = teacher + np.round(generator.normal(2, 1, count), 1)
        self.teacher = (-teacher * self.counts).astype(np.float32)
        self.reference = (-reference * self.counts).astype(np.float32)
        self.defined = self.counts > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            t, ref = (s.astype(np.float64) / self.counts for s in (self.teacher, self.reference))
            self.r = np.where(self.defined, t - ref, np.nan)
        self.corpus = Corpus(corpus)
        self.folder = folder / "store"
        self.folder.mkdir()
        self.files = self.write(self.folder)

    def write(self, folder: Path) -> list[str]:
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [s.astype(np.float64) / self.counts for s in (self.teacher, self.reference)]
        return write_report(folder, self.corpus, self.r, *means, RATIO)

    def kept(self, ratio: float) -> np.ndarray:
        """Mask of the kept rows by a full sort: highest r first, ties by row."""
        order = sorted(np.flatnonzero(self.defined), key=lambda i: (-self.r[i], i))
        mask = np.zeros(len(self.r), bool)
        mask[order[: int(np.floor(ratio * self.defined.sum()))]] = True
        return mask

    def table(self, name: str) -> list[dict]:
        with open(self.folder / "report" / f"{name}.csv", newline="") as file:
            return list(csv.DictReader(file))


def make_rows(generator: np.random.Generator, count: int) -> list[np.ndarray]:
    return [generator.integers(1, 600, generator.integers(2, 66)) for _ in range(count)]


@pytest.fixture(scope="module")
def case(tmp_path_factory, tokenizer_folder) -> Case:
    return Case(tmp_path_factory.mktemp("report"), tokenizer_folder)


def test_sources_table(case):
    kept, rates = case.kept(RATIO), []
    for row in case.table("sources"):
        mine = (case.domains == SOURCES.index(row["source"])) & case.defined
        assert int(row["sequences"]) == mine.sum()
        assert int(row["tokens"]) == case.lengths[mine].sum()
        assert float(row["mean_r"]) == pytest.approx(case.r[mine].mean(), abs=1e-12)
        loss = (-case.teacher[mine].astype(float) / case.counts[mine]).mean()
        assert float(row["mean_teacher_loss"]) == pytest.approx(loss, abs=1e-12)
        assert int(row["kept"]) == (mine & kept).sum()
        assert float(row["keep_rate"]) == (mine & kept).sum() / mine.sum()
        assert float(row["share_before"]) == mine.sum() / case.defined.sum()
        assert float(row["share_after"]) == (mine & kept).sum() / kept.sum()
        after = case.lengths[mine & kept].sum() / case.lengths[kept].sum()
        assert float(row["token_share_after"]) == pytest.approx(after)
        without = (case.domains == SOURCES.index(row["source"])) & ~case.defined
        assert int(row["without_r"]) == without.sum()
        rates.append(float(row["keep_rate"]))
    assert len(rates) == 3 and rates == sorted(rates, reverse=True)


def test_lengths_table(case):
    kept, total = case.kept(RATIO), 0
    for row in case.table("lengths"):
        low, _, high = row["tokens_a_sequence"].partition("–")
        low, high = (65, 65) if "full" in low else (int(low), int(high))
        mine = (case.lengths >= low) & (case.lengths <= high) & case.defined
        assert int(row["sequences"]) == mine.sum()
        assert int(row["kept"]) == (mine & kept).sum()
        total += mine.sum()
    assert total == case.defined.sum()


def test_sweep_table(case):
    rows = case.table("sweep")
    assert [float(row["alpha"]) for row in rows] == [i / 10 for i in range(1, 11)]
    for row in rows:
        kept = case.kept(float(row["alpha"]))
        assert float(row["threshold"]) == case.r[kept].min()
        assert int(row["sequences"]) == kept.sum()
        assert int(row["tokens"]) == case.lengths[kept].sum()
        assert float(row["mean_r"]) == pytest.approx(case.r[kept].mean(), abs=1e-12)
        for number, name in enumerate(SOURCES):
            share = (kept & (case.domains == number)).sum() / kept.sum()
            assert float(row[f"share {name}"]) == pytest.approx(share)


def test_histogram_table(case):
    rows = case.table("histogram")
    edges = [float(row["from"]) for row in rows] + [float(rows[-1]["to"])]
    known = case.r[case.defined]
    expected = np.histogram(known, edges)[0]
    assert [int(row["sequences"]) for row in rows] == expected.tolist()
    kept = np.histogram(case.r[case.kept(RATIO)], edges)[0]
    assert [int(row["kept"]) for row in rows] == kept.tolist()
    shares = [float(row["share_to_here"]) for row in rows]
    assert shares == pytest.approx((np.cumsum(expected) / len(known)).tolist())
    for number, name in enumerate(SOURCES):
        mine = np.histogram(case.r[case.defined & (case.domains == number)], edges)[0]
        assert [int(row[f"sequences {name}"]) for row in rows] == mine.tolist()


def test_density_table(case):
    rows = case.table("density")
    assert sum(int(row["sequences"]) for row in rows) == case.defined.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (-s.astype(float) / case.counts for s in (case.teacher, case.reference))
    limits = {name: [float(row[name]) for row in rows] for name in rows[0]}
    inner = [
        min(limits["teacher_from"]), max(limits["teacher_to"]),
        min(limits["reference_from"]), max(limits["reference_to"]),
    ]  # fmt: skip
    checked = 0
    for row in rows:
        box = [float(row[key]) for key in list(row)[:4]]
        if any(limit in inner for limit in box):  # holds what lies beyond it too
            continue
        mine = (x >= box[0]) & (x < box[1]) & (y >= box[2]) & (y < box[3])
        assert int(row["sequences"]) == mine.sum()
        checked += 1
    assert checked > 30


def test_summary(case):
    (row,) = case.table("summary")
    kept = case.kept(RATIO)
    assert int(row["kept"]) == kept.sum() and int(row["kept_tokens"]) == case.lengths[kept].sum()
    assert float(row["threshold"]) == case.r[kept].min()
    assert int(row["without_r"]) == len(UNDEFINED)
    known = case.r[case.defined]
    assert float(row["standard_deviation_r"]) == pytest.approx(known.std())
    teacher = case.teacher[case.defined].astype(float) / case.counts[case.defined]
    expected = np.corrcoef(known, teacher)[0, 1]
    assert float(row["correlation_with_teacher"]) == pytest.approx(expected)
    dropped = case.r[case.defined & ~kept].mean()
    assert float(row["mean_r_dropped"]) == pytest.approx(dropped)


def test_examples_are_the_rows_at_their_ranks(case, tokenizer_folder):
    order = sorted(np.flatnonzero(case.defined), key=lambda i: (-case.r[i], i))
    tokenizer = load_tokenizer(tokenizer_folder)
    rows = case.table("examples")
    places = {row["place"]: int(row["rank"]) for row in reversed(rows)}
    n = len(order)
    assert places["10 % from the top"] == int(0.1 * n) + 1
    assert places["90 % from the top"] == int(0.9 * n) + 1
    assert rows[0]["place"] == "top, 0.1 % from the top"
    assert rows[-1]["place"] == "bottom" and int(rows[-1]["rank"]) == n
    half = len(case.rows) // 2
    kept = case.kept(RATIO)
    for row in rows:
        i = order[int(row["rank"]) - 1]
        assert int(row["row"]) == i and float(row["r"]) == case.r[i]
        assert (row["shard"], int(row["row_in_shard"])) == (f"data_{i // half}", i % half)
        assert row["source"] == SOURCES[case.domains[i]]
        assert bool(int(row["kept"])) == kept[i]
        loss = -float(case.reference[i]) / case.counts[i]
        assert float(row["reference_loss"]) == pytest.approx(loss, abs=1e-12)
        plain = tokenizer.decode(case.rows[i].tolist()).replace("\r\n", "\n")
        same = [a == b for a, b in zip(row["text"], plain, strict=True) if a != "\ufffd"]
        assert all(same) and len(same) > 0


def test_the_page_is_escaped_and_needs_nothing_else(case):
    page = (case.folder / "report.html").read_text()
    assert "<b>bold" not in page and html.escape(SOURCES[1]) in page
    assert page.count("data:image/png;base64,") == 6
    without_pictures = re.sub(r'src="data:[^"]*"', "", page)
    assert not re.search(r"<script|<link|src=|href=|https?:", without_pictures)
    kept = case.kept(RATIO)
    assert f"{kept.sum()} of {case.defined.sum()} sequences are kept" in page
    assert "2 sequences have no token that counts" in page
    for name in ("sources", "lengths", "sweep", "histogram", "density", "examples"):
        assert f"report/{name}.csv" in page


def test_hostile_text_stays_text(tmp_path, tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    hostile = "</pre><script>alert(1)</script>\x00\x1b[2J\u202eabc\r\n"
    rows = [np.array(tokenizer(f"{hostile}{i}")["input_ids"], np.int64) for i in range(4)]
    corpus = Corpus(save_corpus(tmp_path / "corpus", rows, tokenizer_folder, None))
    write_report(tmp_path, corpus, np.arange(4.0), np.arange(4.0) - 4, np.full(4, -4.0), 0.5)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e]", page)


def test_equal_scores_give_equal_bytes(case, tmp_path):
    assert case.write(tmp_path) == case.files
    assert len(case.files) == 14 and len(set(case.files)) == 14
    for name in case.files:
        assert (tmp_path / name).read_bytes() == (case.folder / name).read_bytes(), name
    on_disk = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert on_disk == set(case.files)


def test_a_corpus_without_domains_and_tokenizer(tmp_path):
    case = Case(tmp_path, None, with_domains=False)
    (row,) = case.table("sources")
    assert row["source"] == "unknown" and int(row["sequences"]) == case.defined.sum()
    first = case.table("examples")[0]
    ids = " ".join(map(str, case.rows[int(first["row"])].tolist()))
    assert first["text"] == f"token ids {ids}"
    assert "does not say which source" in (case.folder / "report.html").read_text()


@pytest.mark.parametrize("ratio", [0.01, 0.5, 1.0])
def test_few_or_no_defined_rows(tmp_path, ratio):
    rows = [np.array([1, 2, 3])] * 2
    corpus = Corpus(save_corpus(tmp_path / "corpus", rows, None, None))
    for name, counts in (("none", [0, 0]), ("one", [0, 2])):
        (tmp_path / name).mkdir()
        r = np.where(np.array(counts) > 0, 0.0, np.nan)
        files = write_report(tmp_path / name, corpus, r, r - 1, r - 1, ratio)
        assert all((tmp_path / name / file).is_file() for file in files)
    assert "None of the 2 sequences" in (tmp_path / "none/report.html").read_text()


def test_ranking_equals_a_full_sort():
    generator = np.random.default_rng(3)
    for trial in range(60):
        count = int(generator.integers(1, 40))
        values = generator.integers(0, 6, count).astype(float)
        values[generator.random(count) < 0.3] = np.nan
        order = sorted(np.flatnonzero(~np.isnan(values)), key=lambda i: (-values[i], i))
        keep = int(generator.integers(0, len(order) + 1))
        assert ranking.top(values, keep).tolist() == sorted(order[:keep]), trial
        assert ranking.rows_at(values, list(range(len(order)))) == order


def test_ranking_across_pieces(monkeypatch):
    monkeypatch.setattr(ranking, "PIECE", 7)
    test_ranking_equals_a_full_sort()


def test_bins_equal_numpy_s():
    generator = np.random.default_rng(4)
    for scale in (1e-5, 1, 1e4):
        values = np.round(generator.normal(3, 1, 5000), 2) * scale
        edges = equal_bins(values, 40)
        inside = np.clip(values, edges[0], edges[-1])
        counts = np.bincount(bin_of(values, edges), minlength=len(edges) - 1)
        assert counts.tolist() == np.histogram(inside, edges)[0].tolist()
        assert 40 <= len(edges) - 1 <= 82
    assert len(equal_bins(np.full(9, 2.5), 40)) >= 2
    assert length_limits(1025).tolist() == [128, 256, 384, 512, 640, 768, 896, 1024, 1025]


def test_two_million_scores_in_bounded_memory(tmp_path):
    count = 2_000_000
    generator = np.random.default_rng(6)
    lengths = np.full(count, 2)
    folder = tmp_path / "corpus"
    output = Output(folder, "corpus", "tests", {"max_length": 2}, {}).begin()
    write_shard(folder / "data_0", lengths, [np.ones(2 * count, "<u2")], np.dtype("<u2"))
    np.save(folder / "domain_0.npy", generator.integers(0, 3, count).astype(np.uint8))
    output.finish(["data_0.bin", "data_0.idx", "domain_0.npy"], {"domains": SOURCES})
    r = generator.normal(size=count)
    r[::1000] = np.nan
    corpus, teacher, reference = Corpus(folder), 0 * r - 1, -1 - r
    import matplotlib.pyplot  # noqa: F401  its modules are not the report's memory

    tracemalloc.start()
    write_report(tmp_path, corpus, r, teacher, reference, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Passes in pieces and the pictures: no array as long as the number of rows, which takes 16 MB.
    assert peak < 60e6, f"{peak / 1e6:.0f} MB"
    with open(tmp_path / "report/sources.csv") as file:
        kept = sum(int(row["kept"]) for row in csv.DictReader(file))
    assert kept == int(0.5 * np.count_nonzero(~np.isnan(r)))
