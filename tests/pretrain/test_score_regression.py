"""The regression of r: loss and gradients against a slow version, and which labels a row gets.

.venv/bin/python -m pytest tests/pretrain/test_score_regression.py
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cluster.processes import Processes
from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.differences import FILE, Labels
from data_utils.errors import InputError
from pretrain import train
from pretrain.flops import forward_flops
from pretrain.models import load_model
from pretrain.objective import Context, load, parse_settings
from pretrain.score_head import add_score_head, load_scorer
from tests import make
from tests.miniplm import proxies

CPU = torch.device("cpu")
ROWS, SHARD, EOS = 20, 4, 0


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    base = tmp_path_factory.mktemp("a base")
    rows = make.random_rows(ROWS, 600, EOS, longest=9)
    for name, corpus_rows in (("corpus", rows), ("other", rows[::-1])):
        make.save_corpus(base / name, corpus_rows, tokenizer_folder, shard_size=SHARD)
    make.save_model(base / "model", proxies.MODEL, 1, tokenizer_folder)
    save_labels(base / "labels", base / "corpus", np.arange(12) / 8 + 4)
    for name, shards, corpus in (
        ("part", (2, 4), "corpus"),
        ("outside", (3, 5), "corpus"),
        ("of another", (2, 4), "other"),
    ):
        proxies.split(base, name, shards, corpus)
    return base


def save_labels(folder: Path, corpus: Path, r: np.ndarray, shards: tuple = (1, 4)) -> Path:
    """A store of these differences, of rows from the first of the shards on."""
    inputs = {"corpus": (corpus, artefact.identity(corpus, "corpus", ""))}
    content = {"type": "difference", "shards": list(shards)}
    output = Output(folder, "scores", "tests", content, {}, inputs).begin()
    np.save(folder / FILE, np.asarray(r, np.float64))
    output.finish([FILE], {"sequences": len(r), "first_row": SHARD * shards[0]})
    return folder


def objective(base: Path, **settings: object):
    """(the student, its objective) on the part."""
    words = [str(base), "--objective", "score_regression", "--labels", "labels"]
    student = load_model(base / "model", "fp32", "sdpa")
    context = Context(parse_settings(words), Processes(0, 1, CPU), None, Corpus(base / "part"), EOS)
    return student, load("score_regression")(student, context)


def slow_loss(model, head, corpus: Corpus, labels: list[float]) -> torch.Tensor:
    """Row by row, position by position; labels standardised, NaN where there is none."""
    errors = []
    for row, label in enumerate(labels):
        ids = corpus.row(row).astype(np.int64)
        if np.isnan(label):
            errors.append(torch.zeros(()))
            continue
        hidden = model(input_ids=torch.tensor(ids[None, :-1]), output_hidden_states=True)
        values = [
            (hidden.hidden_states[-1][0, i] * head.weight[0]).sum() + head.bias[0]
            for i in range(len(ids) - 1)
            if ids[i] != EOS
        ]
        errors.append((sum(values) / len(values) - label) ** 2)
    return sum(errors) / len(errors)


def test_loss_and_gradients_equal_a_slow_version(base):
    student, regression = objective(base)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # zeros would hide the trunk's gradients
        regression.head.weight.copy_(torch.randn(1, 32, generator=generator))
        regression.head.bias.fill_(0.3)
    corpus, rows = Corpus(base / "part"), np.arange(8)
    labels = regression.columns(rows)["label"]
    labels[[1, 6]] = np.nan
    tokens, lengths = corpus.batch(rows, EOS)
    micro = {"tokens": tokens, "lengths": lengths, "label": labels}
    micro = {name: torch.from_numpy(values) for name, values in micro.items()}
    loss, figures = regression.loss(micro)
    expected = slow_loss(student, regression.head, corpus, labels.tolist())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and loss.item() > 0.1
    names = ["score_head.weight", "score_head.bias", "model.embed_tokens.weight"]
    parameters = dict(student.named_parameters())
    found, slow = (
        torch.autograd.grad(value, [parameters[name] for name in names])
        for value in (loss, expected)
    )
    for a, b in zip(found, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
        assert float(a.abs().max()) > 1e-3
    # In nats: the labels' own unit.
    micro["label"] = torch.full((8,), float("nan"))
    nothing, figures = regression.loss(micro)
    assert float(nothing) == float(figures["absolute_error"]) == 0


def test_a_new_head_predicts_the_mean_of_all(base):
    student, regression = objective(base)
    r = np.arange(12)[4:] / 8 + 4
    assert regression.labels.mean == pytest.approx(r.mean())
    assert regression.labels.std == pytest.approx(r.std())
    labels = regression.columns(np.arange(8))["label"]
    assert labels.dtype == np.float32
    tokens, lengths = Corpus(base / "part").batch(np.arange(8), EOS)
    micro = {"tokens": tokens, "lengths": lengths, "label": labels}
    loss, figures = regression.loss({k: torch.from_numpy(v) for k, v in micro.items()})
    assert float(loss) == pytest.approx(1, rel=1e-5)  # in units of the variance
    assert float(figures["absolute_error"]) == pytest.approx(np.abs(r - r.mean()).mean(), rel=1e-5)


def test_a_row_has_its_own_label(base):
    """Of a part by its shards' rows; of the whole corpus where all of it is labelled."""
    labels = Labels(base / "labels", Corpus(base / "part"))
    np.testing.assert_array_equal(labels.r, np.arange(12)[4:] / 8 + 4)
    found = labels.standardised(np.array([5, 0])) * labels.std + labels.mean
    np.testing.assert_allclose(found, [9 / 8 + 4, 4 / 8 + 4], rtol=1e-6)
    save_labels(base / "all labels", base / "corpus", np.arange(ROWS), shards=(0, 5))
    whole = Labels(base / "all labels", Corpus(base / "corpus"))
    assert whole.r.tolist() == list(range(ROWS))


def test_labels_that_do_not_belong_to_the_rows(base):
    def refuse(match: str, data: str, labels: str = "labels") -> None:
        words = [base, "--objective", "score_regression", "--labels", labels]
        words += ["--data-dir", data, "--model-path", "model", "--save", "none"]
        with pytest.raises(InputError, match=match):
            train.check([str(word) for word in words], 1)

    refuse("labels are of another corpus", "of another")
    refuse("labels are of another corpus", "other")
    refuse("do not cover the shards .* 1:4, found 3:5", "outside")
    refuse("do not cover the shards .* 1:4, found 0:5", "corpus")
    refuse("there are no scores", "part", "nowhere")
    for name, r in (("undefined", np.full(12, np.nan)), ("equal", np.ones(12))):
        save_labels(base / name, base / "corpus", r)
        refuse("all undefined, or all the same", "part", name)
    inputs = {"corpus": (base / "corpus", artefact.identity(base / "corpus", "corpus", ""))}
    output = Output(base / "means", "scores", "tests", {"type": "x"}, {}, inputs).begin()
    output.finish([], {"sequences": 0, "first_row": 0})
    refuse("not a store of differences", "part", "means")
    # A corpus of the labelled shards that has other rows.
    rows = [Corpus(base / "corpus").row(row) for row in range(8, 16)]
    tokenizer = base / "model"
    make.save_corpus(base / "fewer", rows[:5] + rows[6:], tokenizer)
    path = base / "fewer" / artefact.MANIFEST
    values = json.loads(path.read_text())
    known = artefact.read_manifest(base / "part")
    path.unlink()
    manifest = artefact.Manifest(
        base / "fewer",
        "corpus",
        artefact.FORMAT,
        {**values["content"], "shards": [2, 4]},
        values["counts"],
        known.inputs,
        values["files"],
        {},
        {},
    )
    manifest.write()
    refuse("not the rows of the labelled shards .*, found 7 rows", "fewer")
    with pytest.raises(InputError, match="--valid-data"):
        parse_settings([str(base), "--objective", "score_regression", "--valid-data", "part"])


def test_flops_are_those_without_the_output_head(base):
    student, regression = objective(base)
    without = forward_flops(student, 20) - 2 * student.lm_head.weight.numel()
    assert regression.student_flops(100, 20) == 3 * without * 100
    tied = {**proxies.MODEL, "tie_word_embeddings": True}
    make.save_model(base / "tied", tied, 1, base / "model")
    model = load_model(base / "tied", "fp32", "sdpa")
    add_score_head(model, 0.0, 1.0)
    regression.student = model
    assert regression.student_flops(100, 20) == 3 * without * 100
    assert regression.teacher_flops(100, 20) == 0


def test_a_head_is_loaded_with_its_model_and_by_nothing_else(base, tmp_path):
    """In fp32 beside a trunk in half precision; a language model does not silently lose it."""
    student, _ = objective(base)
    with torch.no_grad():
        student.score_head.weight.normal_()
    weights = {name: tensor.contiguous() for name, tensor in student.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(student.config.to_dict()))
    loaded = load_scorer(tmp_path, "bf16", "sdpa")
    assert torch.equal(loaded.score_head.weight, student.score_head.weight)
    assert loaded.dtype == torch.bfloat16 and loaded.score_head.weight.dtype == torch.float32
    assert (loaded.config.score_mean, loaded.config.score_std) == (
        student.config.score_mean,
        student.config.score_std,
    )
    with pytest.raises(InputError, match="has no place for some weights .score_head"):
        load_model(tmp_path, "fp32", "sdpa")
    with pytest.raises(InputError, match="no head that scores rows"):
        load_scorer(base / "model", "fp32", "sdpa")
    del weights["score_head.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="no head that scores rows"):
        load_scorer(tmp_path, "fp32", "sdpa")
