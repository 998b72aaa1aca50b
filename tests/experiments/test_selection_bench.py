"""The bench of selection criteria: mixtures of a pool, its tokenizer, its students, its figures.

.venv/bin/python -m pytest tests/experiments/test_selection_bench.py
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.tokenizer import load_tokenizer
from eval.comparisons import mean_interval
from eval.run_curves import read_curve
from experiments.planted_noise import plant
from experiments.planted_noise.plant import JUNK, NOISE
from experiments.selection_bench import forked_programs, mixture, results, students
from experiments.selection_bench.bench import CONDITIONS, CRITERIA, Bench, Student
from experiments.selection_bench.forked_programs import Failed, Job
from experiments.selection_bench.frequencies import frequency_loss
from miniplm import difference
from miniplm.scores import Scores
from reports.files import read_csv
from tests import make
from tools import convert_tokenization, train_tokenizer

EOS, NAME = 0, "tokens"
POOL, SCORES = f"processed_data/pretrain/pool/{NAME}", f"results/scores/pool/{NAME}"
ROWS = 40


def call(program, base: Path, **flags: object) -> None:
    """A program's main() with these flags."""
    words = [str(word) for name, value in flags.items() for word in option(name, value)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [program.__name__, str(base), *words])
        program.main()


def option(name: str, value: object) -> list:
    return [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [value])]


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    """A pool of 90 rows (30 of text, 27 of noise, 33 of junk) with scores by two tiny models."""
    base = tmp_path_factory.mktemp("with space")
    text = make.text_rows(tokenizer_folder, 90, 33)
    make.save_corpus(base / "clean", text, tokenizer_folder, max_length=33)
    junk = make.random_rows(60, 600, EOS, seed=1, longest=33)
    make.save_corpus(base / "junk", junk, tokenizer_folder, max_length=33)
    held_out = make.text_rows(tokenizer_folder, 8, 33, seed=2)
    make.save_corpus(base / "held out", held_out, tokenizer_folder, max_length=33, split="test")
    shares = {"noise": 0.3, "junk": 0.37}
    call(plant, base, data_dir="clean", junk_dir="junk", save=POOL, **shares)
    corpus = Corpus(base / POOL)
    noise = np.random.default_rng(0).normal(size=(2, len(corpus)))
    planted = np.isin(sources_of(corpus), [NOISE, JUNK])
    store = base / SCORES
    for model, hidden, losses in (
        ("T", 64, 2 + planted + noise[0] / 9),
        ("R", 32, 4 + noise[1] / 9),
    ):
        make.save_model(store / model.lower(), make.qwen_config(600, hidden), 0, tokenizer_folder)
        make.save_scores(store / model, base / POOL, model.lower(), -5 * losses, [5] * len(corpus))
    for condition in ("junk_50", "shuffled_30"):
        mix(base, condition)
    return base


def sources_of(corpus: Corpus) -> list[str]:
    return [corpus.domains[number] for number in corpus.side("domain", np.arange(len(corpus)))]


def mix(base: Path, condition: str, save: str = "", **more: object) -> Corpus:
    """A mixture of ROWS rows with its scores and their differences."""
    save = save or condition
    names = {"teacher_name": "T", "ref_name": "R"}
    scores = f"results/scores/{save}/{NAME}"
    flags = {"pool": POOL, "pool_scores": SCORES, "scores": scores, "rows": ROWS} | names | more
    folder = f"processed_data/pretrain/{save}/{NAME}"
    call(mixture, base, condition=condition, save=folder, **flags)
    difference.compute(difference.Settings(base_path=str(base), scores=scores, **names))
    return Corpus(base / folder)


def test_a_mixture_is_rows_of_the_pool_with_their_own_scores(base):
    pool = Corpus(base / POOL)
    origins = {}
    for condition, kinds in (("junk_50", {JUNK: 20}), ("shuffled_30", {NOISE: 12})):
        corpus = Corpus(base / f"processed_data/pretrain/{condition}/{NAME}")
        origin = corpus.side("source_row", np.arange(ROWS))
        sources = sources_of(corpus)
        assert len(corpus) == ROWS and (np.diff(origin) > 0).all()
        assert {k: sources.count(k) for k in (JUNK, NOISE) if k in sources} == kinds
        assert sources == [sources_of(pool)[row] for row in origin]
        assert all((corpus.row(i) == pool.row(row)).all() for i, row in enumerate(origin))
        for model in "TR":
            whole = Scores(base / SCORES / model, "").means()
            store = Scores(base / f"results/scores/{condition}/{NAME}" / model, "")
            assert all((a == b[origin]).all() for a, b in zip(store.means(), whole, strict=True))
            assert store.manifest.counts["flops"] > 0
        origins[condition] = {row for row, s in zip(origin, sources, strict=True) if s in "AB"}
    # 20 rows of text beside the junk, 28 beside the noise: the fewer are among the more.
    assert len(origins["junk_50"]) == 20 and len(origins["shuffled_30"]) == 28
    assert origins["junk_50"] < origins["shuffled_30"]


def test_a_pool_with_too_few_rows_and_scores_of_another_corpus_are_refused(base):
    with pytest.raises(InputError, match="too few rows of ordinary text"):
        mix(base, "no_plant")
    with pytest.raises(InputError, match="too few rows of planted junk"):
        mix(base, "junk_50", "too many", rows=70)
    with pytest.raises(InputError, match="not of the pool"):
        mix(base, "junk_50", "other", pool=f"processed_data/pretrain/junk_50/{NAME}")


def test_the_tokenizer_keeps_every_text_and_follows_from_its_text(tmp_path):
    texts = make.documents(20)
    make.write_text(tmp_path / "data/train", texts)
    for save in ("a", "b"):
        call(train_tokenizer, tmp_path, data_dir="data/train", save=save, vocabulary=400)
    files = [(tmp_path / save / "tokenizer.json").read_bytes() for save in ("a", "b")]
    found = load_tokenizer(tmp_path / "a")
    assert files[0] == files[1] and len(found) == 400 and found.eos_token_id == 0
    for text in [*texts, make.SCRIPTS]:
        assert found.decode(found.encode(text), clean_up_tokenization_spaces=False) == text
    with pytest.raises(InputError, match="--vocabulary"):
        call(train_tokenizer, tmp_path, vocabulary=257)


def test_what_is_asked_for_must_exist():
    for wrong in ({"conditions": ["x"]}, {"criteria": ["x"]}, {"criteria": ["prior"]}):
        with pytest.raises(ValueError, match="--c"):
            Bench(**wrong)
    with pytest.raises(ValueError, match="--seeds"):
        Bench(seeds=[1, 1])
    names = [student.name for student in Bench().students()]
    assert len(set(names)) == len(names) == len(CONDITIONS) * len(CRITERIA) * 3


def test_a_failing_program_stops_the_rest_with_its_own_message(tmp_path):
    fine = [["data_utils/../tools/verify.py", "--help"]]
    failing = [["tools/verify.py", str(tmp_path / "missing")]]
    jobs = [Job("fine", fine), Job("failing", failing), Job("never", fine)]
    with pytest.raises(Failed, match="ERROR .*failing") as failed:
        forked_programs.run_all(jobs, 1, tmp_path / "logs", "programs")
    assert failed.value.code == 2
    assert "usage:" in (tmp_path / "logs/fine.log").read_text()
    assert not (tmp_path / "logs/never.log").exists()


def test_no_exit_code_of_many_at_once_is_lost(tmp_path):
    jobs = [Job(str(number), [["data_utils/errors.py"]] * 2) for number in range(60)]
    forked_programs.run_all(jobs, 3, tmp_path, "programs")
    assert len(list(tmp_path.glob("*.log"))) == 60


@pytest.fixture(scope="module")
def trained(base, tokenizer_folder) -> Path:
    """The bench on one mixture: three criteria, two seeds, two steps."""
    make.train_tokenizer(base / "checkpoints/bpe", make.documents(50), 300)
    bpe = {"target_tokenizer_path": "checkpoints/bpe", "max_length": 65}
    save = "processed_data/held_out/students"
    call(convert_tokenization, base, data_dir="held out", save=save, **bpe)
    (base / "student.json").write_text(json.dumps(make.qwen_config(300)))
    sizes = {"model_config": "student.json", "max_length": 65, "steps": 2, "batch": 4}
    for _ in range(2):  # the second time all is there already
        call(students, base, **GRID, **sizes, valid_every=1, jobs=1)
    return base


GRID = {
    "conditions": ["junk_50"],
    "criteria": ["difference_0.25", "prior", "random"],
    "seeds": [1, 2],
    "corpus": NAME,
    "teacher_name": "T",
    "ref_name": "R",
}


def test_students_and_their_figures(trained):
    one = Student("junk_50", "random", 1)
    log = (trained / "logs" / f"{one.name}.log").read_text()
    assert log.count("pretrain/train.py") == 2 and log.count("eval/lm.py") == 1
    reference = {"reference": one.folder, "reference_data": str(one.data / "students")}
    reference["reference_held_out"] = "processed_data/held_out/students"
    call(results, trained, **GRID, **reference)
    folder = trained / results.FOLDER
    rows = {
        row["criterion"]: row
        for row in read_csv(folder / "criteria.csv", ["condition", "criterion", "scoring_flops"])
    }

    def loss(criterion: str, seed: int) -> float:
        name = Student("junk_50", criterion, seed).name
        return json.loads((trained / f"results/eval/lm/{name}.json").read_text())["loss"]

    for criterion in GRID["criteria"]:
        mine = np.array([loss(criterion, seed) for seed in (1, 2)])
        differences = mine - [loss("random", seed) for seed in (1, 2)]
        assert rows[criterion]["loss"] == pytest.approx(mine.mean(), abs=1e-12)
        assert rows[criterion]["difference"] == pytest.approx(differences.mean(), abs=1e-12)
        half = 12.7062 * abs(mine[0] - mine[1]) / 2  # Student's t of one degree of freedom
        assert rows[criterion]["high"] - rows[criterion]["loss"] == pytest.approx(half, rel=1e-4)
    assert rows["random"]["steps"] <= 2
    # 10 of 40 rows: all of text, whose r is higher by 1.
    assert rows["difference_0.25"]["plant_kept"] == 0
    assert 0 < rows["random"]["plant_kept"] < 1
    assert rows["prior"]["scoring_flops"] == rows["random"]["scoring_flops"] == "0.0"
    assert rows["difference_0.25"]["scoring_flops"] == "unknown"  # hand-made models
    rates = read_csv(folder / "keep_rates.csv", ["condition", "criterion"])
    assert {row["criterion"]: row[JUNK] for row in rates}["difference_0.25"] == 0
    page = (folder / "report.html").read_text()
    assert "http" not in page and "token frequencies alone" in page and "junk_50" in page
    curve = read_curve(trained / one.folder)
    assert len(curve.losses) == 2


def test_losses_of_token_frequencies(base):
    corpus, held_out = Corpus(base / "clean"), Corpus(base / "held out", "test")
    counts: dict[int, int] = {}
    for row in range(len(corpus)):
        for token in corpus.row(row).tolist():
            counts[token] = counts.get(token, 0) + 1
    ids = [held_out.row(row).tolist() for row in range(len(held_out))]
    size = max([*counts, *(max(row) for row in ids)]) + 1
    total = sum(counts.values()) + size
    means = []
    for row in ids:
        pairs = zip(row, row[1:], strict=False)
        terms = [math.log((counts.get(b, 0) + 1) / total) for a, b in pairs if a != held_out.eos_id]
        means += [sum(terms) / len(terms)] if terms else []
    assert frequency_loss(corpus, held_out) == pytest.approx(-sum(means) / len(means), abs=1e-12)


def test_intervals_over_seeds():
    mean, low, high = mean_interval(np.array([1.0, 2.0, 4.0]))
    half = 4.302653 * 1.527525 / math.sqrt(3)
    assert (mean, low, high) == pytest.approx((7 / 3, 7 / 3 - half, 7 / 3 + half), rel=1e-5)
    assert np.isnan(mean_interval(np.array([1.0]))[1:]).all()
