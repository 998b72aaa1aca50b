"""Selection without score stores: by token priors, and by a file of scores made elsewhere.

.venv/bin/python -m pytest tests/miniplm/test_unscored_selection.py
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from miniplm import criteria, selection, token_priors
from tests import make

ROWS, SHARD = 30, 10
PRETRAIN = "processed_data/pretrain"


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    """A corpus and no model, no scores."""
    base = tmp_path_factory.mktemp("base")
    rows = make.random_rows(ROWS, 600, 0, longest=30)
    make.save_corpus(base / "corpus", rows, tokenizer_folder, shard_size=SHARD, source_row=900)
    return base


def select(monkeypatch, base: Path, *flags: object) -> tuple[list[int], artefact.Manifest]:
    """(the rows that are kept, the manifest)"""
    words = [str(word) for word in (base, *flags, "--data-dir", "corpus")]
    monkeypatch.setattr(sys, "argv", ["program", *words])
    selection.main()
    settings = selection.parse(selection.Settings, words, positional="base_path ratio")
    folder = base / settings.output_folder()
    selected = Corpus(folder)
    rows = selected.side("source_row", np.arange(len(selected))).tolist()
    return rows, artefact.require(folder, "corpus", "", contents=True)


def test_prior_needs_no_scores(base, monkeypatch, capsys):
    rows, manifest = select(monkeypatch, base, 0.3, "--criterion", "prior")
    assert manifest.folder == base / PRETRAIN / "pile-prior_samp-r0.3/corpus"
    everything = criteria.Choice(criterion="prior")
    corpus = Corpus(base / "corpus")
    values = criteria.Candidates(corpus, 0, ROWS, everything).values()
    assert rows == sorted(sorted(range(ROWS), key=lambda i: (-values[i], i))[:9])
    assert manifest.counts["without_a_value"] == manifest.counts["in_other_shards"] == 0
    assert "9 kept + 21 dropped + 0 without a value + 0 in other shards = 30 rows" in (
        capsys.readouterr().out
    )
    assert set(manifest.inputs) == {"corpus"} and manifest.content["shards"] == [0, 3]
    assert "tau" not in manifest.content and manifest.content["criterion"] == "prior"


def test_prior_of_some_shards_knows_only_them(base, monkeypatch):
    rows, manifest = select(monkeypatch, base, "--criterion", "prior", "--shards", "1:3")
    assert manifest.folder.parent.name == "pile-prior_samp-shards1_3-r0.5"
    assert len(rows) == 10 and min(rows) >= 10 and manifest.counts["in_other_shards"] == 10
    corpus = Corpus(base / "corpus")
    tokens = np.concatenate(corpus.sequences(np.arange(10, 30)))
    ids, numbers = np.unique(tokens, return_counts=True)
    first = np.log(numbers[np.searchsorted(ids, corpus.row(10))] / len(tokens))
    means, deviations = token_priors.moments(corpus, 10, 20)
    assert means[0] == pytest.approx(first.mean()) and deviations[0] == pytest.approx(first.std())


def save(path: Path, scores: np.ndarray, **ids: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, scores)
    elif path.suffix == ".pt":
        torch.save(torch.tensor(scores, dtype=torch.float32), path)
    else:
        pyarrow.parquet.write_table(pyarrow.table({**ids, "quality": scores}), path)
    return path


@pytest.mark.parametrize("name", ["s.npy", "s.pt", "s.parquet"])
def test_external_keeps_the_highest_and_never_nan(name, base, monkeypatch):
    scores = np.round(np.random.default_rng(3).normal(size=ROWS), 1).astype(np.float32)
    scores[[0, 7]], scores[8], scores[9] = np.nan, np.inf, -np.inf
    ids = {"row": np.arange(ROWS), "source_row": 900 + np.arange(ROWS) % SHARD}
    save(base / name, scores, **ids)
    words = ["--criterion", "external", "--score-file", name]
    for ratio, keep in ((0.5, 14), (1, 28)):
        rows, manifest = select(monkeypatch, base, ratio, *words)
        order = [i for i in range(ROWS) if not np.isnan(scores[i])]
        assert rows == sorted(sorted(order, key=lambda i: (-scores[i], i))[:keep])
        assert manifest.folder.parent.name == f"pile-external_samp-{name}-r{ratio:g}"
        assert manifest.counts["without_a_value"] == 2
        assert manifest.inputs["score_file"]["kind"] == "score file"
    save(base / name, -scores, **ids)  # another file in its place is no finished selection's
    with pytest.raises(InputError, match="made from another score_file"):
        select(monkeypatch, base, 0.5, *words)


def test_external_of_some_shards(base, monkeypatch):
    save(base / "part.parquet", np.arange(10.0), row=np.arange(20, 30))
    words = ["--criterion", "external", "--score-file", "part.parquet", "--shards", "2:3"]
    rows, _ = select(monkeypatch, base, 0.2, *words)
    assert rows == [28, 29]


def test_external_refuses_what_is_not_of_this_corpus(base, monkeypatch):
    def refuse(match: str, path: Path | str, *words: object) -> None:
        flags = ["--criterion", "external", "--score-file", path, "--save", "refused", *words]
        with pytest.raises(InputError, match=match):
            select(monkeypatch, base, *flags)
        assert not (base / "refused").exists()

    ids, scores = np.arange(ROWS), np.zeros(ROWS)
    for suffix in ("npy", "pt", "parquet"):
        short = save(base / f"short.{suffix}", scores[1:])
        refuse(r"another corpus or of other shards.*expected 30 scores.*found 29", short)
        (base / f"bytes.{suffix}").write_bytes(b"no scores")
        refuse("cannot be read", base / f"bytes.{suffix}")
    refuse("expected 10 scores", save(base / "long.npy", scores), "--shards", "0:1")
    refuse("not scores.*30 x 1 of float64", save(base / "wide.npy", scores[:, None]))
    refuse("not scores.*of <U1", save(base / "text.npy", np.array(["a"] * ROWS)))
    refuse("line 0 is of another row", save(base / "rows.parquet", scores, row=ids[::-1]))
    refuse("expected source_row 900", save(base / "source.parquet", scores, source_row=ids))
    two = {"quality": scores, "length": scores}
    pyarrow.parquet.write_table(pyarrow.table(two), base / "two.parquet")
    refuse("which column is the score", base / "two.parquet")
    refuse("no such score file", "nowhere.npy")
    refuse("format", "scores.csv")
    with pytest.raises(InputError, match="need each other"):
        select(monkeypatch, base, "--criterion", "external")
    with pytest.raises(InputError, match="need each other"):
        select(monkeypatch, base, "--score-file", base / "long.npy")


def test_settings_never_share_a_folder():
    """Of all criteria and settings that decide a selection."""
    choices = [{"criterion": name} for name in criteria.CRITERIA if name != "external"]
    choices += [{"criterion": "reference_band", "band": band} for band in ("low", "high")]
    for tau in (1e-9, 0.1, 0.100001, 2.0):
        choices += [{"criterion": "temperature", "tau": tau, "seed": seed} for seed in (10, 3)]
    choices += [{"criterion": "prior", "shards": shards} for shards in ("", "0:1", "1:2")]
    choices += [{"criterion": "random", "seed": 3}]
    choices += [{"criterion": "external", "score_file": name} for name in ("a.pt", "a.npy")]
    names = [selection.Settings(**choice).output_folder() for choice in choices]
    assert len(set(names)) == len(names)
    named = selection.Settings(criterion="temperature", tau=0.5).output_folder()
    assert Path(named).parts[-2] == "pile-temperature_samp-qwen_1.8B-qwen_104M-tau0.5-r0.5"
    assert selection.Settings(tau=0.1 + 1e-9).tau == 0.1  # as its folder says
    for tau in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="--tau"):
            selection.Settings(tau=tau)
