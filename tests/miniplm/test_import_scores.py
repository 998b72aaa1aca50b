"""The original's score files become a store of exact means over the corpus that is named.

.venv/bin/python -m pytest tests/miniplm/test_import_scores.py
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data_utils import artefact
from data_utils.corpus import Corpus
from miniplm.scores import Scores
from tests import make, programs

EOS, SHARD, FILE = 0, 25, 20


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    base = tmp_path_factory.mktemp("a base")
    rows = make.text_rows(tokenizer_folder, 75, 33)
    rows[30] = np.array([7])  # a row of one token has no counted position either
    make.save_corpus(base / "corpus", rows, tokenizer_folder, shard_size=SHARD)
    return base


def obvious_counts(corpus: Corpus) -> np.ndarray:
    """Inputs that are no end-of-text token, in a loop."""
    rows = range(len(corpus))
    return np.array([sum(int(t) != EOS for t in corpus.row(r)[:-1]) for r in rows], np.int32)


def theirs(folder: Path, rows: int, size: int = FILE, undefined: tuple = (3, 5)) -> np.ndarray:
    """Score files of `size` rows each; NaN where nothing is counted, as the original writes it."""
    folder.mkdir()
    losses = np.random.default_rng(0).normal(3, 1, rows).astype(np.float32)
    losses[list(undefined)] = np.nan
    for number, start in enumerate(range(0, rows, size)):
        torch.save(torch.tensor(losses[start : start + size]), folder / f"scores_{number}.pt")
    return losses


def import_scores(base: Path, scores: str, save: str, *more: object) -> programs.Program:
    words = ["--scores-dir", scores, "--data-dir", "corpus", "--save", save, *more]
    return programs.call(base, "miniplm.score", "import", base, *words)


def test_means_are_used_as_they_are(base):
    losses = theirs(base / "theirs", 75)
    run = import_scores(base, "theirs", "store")
    assert run.code == 0 and "75 scores imported, 3 without" in run.output, run.errors
    store, counts = Scores(base / "store", ""), obvious_counts(Corpus(base / "corpus"))
    means, found = store.means()
    assert (found == counts).all() and (counts == 0).sum() == 3
    assert means.dtype == np.float64
    expected = np.where(counts > 0, -losses.astype(np.float64), np.nan)
    np.testing.assert_array_equal(means, expected)
    assert store.manifest.counts["counted_tokens"] == counts.sum()
    assert (
        "75 scores imported" not in import_scores(base, "theirs", "store").output
    )  # there already
    assert "artefacts are whole" in make.run("tools/verify.py", base / "store").stdout


def test_ten_comes_after_nine(base):
    losses = theirs(base / "many", 75, size=5, undefined=())
    run = import_scores(base, "many", "store of many")
    assert run.code == 0, run.errors
    means, _ = Scores(base / "store of many", "").means()
    losses[np.isnan(means)] = np.nan
    np.testing.assert_array_equal(means, -losses.astype(np.float64))


def test_some_of_the_shards_and_a_known_model(base):
    losses = theirs(base / "part", SHARD, size=10, undefined=())
    make.save_model(base / "teacher", make.qwen_config(600), 1)
    run = import_scores(base, "part", "some", "--shards", "1:2", "--model-path", "teacher")
    assert run.code == 0, run.errors
    store = Scores(base / "some", "")
    assert (store.first_row, len(store), store.shards) == (SHARD, SHARD, (1, 2))
    counts = obvious_counts(Corpus(base / "corpus", shards=(1, 2)))
    losses[counts == 0] = np.nan
    np.testing.assert_array_equal(store.means()[0], -losses.astype(np.float64))
    model = store.manifest.inputs["model"]
    assert model["fingerprint"] == artefact.identity(base / "teacher", "model", "")["fingerprint"]


def test_two_sets_of_files_are_two_models(base):
    theirs(base / "a", 75)
    (base / "b").mkdir()
    for number in range(4):
        losses = torch.load(base / f"a/scores_{number}.pt", weights_only=True)
        torch.save(losses + 1, base / f"b/scores_{number}.pt")
    models = []
    for name in ("a", "b"):
        assert import_scores(base, name, f"store {name}").code == 0
        models.append(Scores(base / f"store {name}", "").manifest.inputs["model"]["fingerprint"])
    assert models[0] != models[1]


def put(change: Callable, number: int = 1) -> Callable:
    """What puts into a score file what change makes of its losses."""

    def spoil(folder: Path) -> None:
        path = folder / f"scores_{number}.pt"
        torch.save(change(torch.load(path, weights_only=True)), path)

    return spoil


def cut_off(folder: Path) -> None:
    path = folder / "scores_1.pt"
    path.write_bytes(path.read_bytes()[:-100])


SPOILED = {  # what is done to the folder, exit code, message
    "a missing middle file": (
        lambda folder: (folder / "scores_1.pt").unlink(),
        2,
        "a score file is missing in {}/scores_1.pt",
    ),
    "a missing last file": (
        lambda folder: (folder / "scores_3.pt").unlink(),
        2,
        "expected 75 scores, one per sequence, found 60",
    ),
    "a short file": (put(lambda losses: losses[:-1]), 2, "scores_1.pt: expected 20, found 19"),
    "one score less": (
        put(lambda losses: losses[:-1], 3),
        2,
        "expected 75 scores, one per sequence, found 74",
    ),
    "two dimensions": (put(lambda losses: losses[:, None]), 2, "found torch.float32 (20, 1)"),
    "half precision": (put(lambda losses: losses.half()), 2, "found torch.float16 (20,)"),
    "a list": (put(lambda losses: losses.tolist()), 2, "found list"),
    # A pickle that makes an object could run any code.
    "an object": (put(lambda _: Path("nowhere")), 2, "cannot be read"),
    "a torn file": (cut_off, 2, "cannot be read"),
    "infinity": (
        put(lambda losses: losses.index_fill(0, torch.tensor([2]), float("inf"))),
        3,
        "the loss is inf for row 22 of data_0",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_does_not_fit_is_refused(base, what):
    spoil, code, said = SPOILED[what]
    folder = base / what
    theirs(folder, 75)
    spoil(folder)
    run = import_scores(base, what, f"store of {what}")
    programs.one_message(run, code, said.format(folder))
    assert not (base / f"store of {what}" / artefact.MANIFEST).exists()


def test_mistakes(base):
    (base / "empty").mkdir()
    for words, said in (
        (["--scores-dir", "empty"], "no score files"),
        (["--scores-dir", "nowhere"], "no score files"),
        ([], "--scores-dir is missing"),
        (["--scores-dir", "empty", "--data-dir", "nowhere"], "no corpus"),
    ):
        run = programs.call(base, "miniplm.score", "import", base, "--data-dir", "corpus", *words)
        programs.one_message(run, 2, said)
