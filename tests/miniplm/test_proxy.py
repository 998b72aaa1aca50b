"""A proxy from its training to a selection, on rows whose r is a function of their tokens.

.venv/bin/python -m pytest tests/miniplm/test_proxy.py
"""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from transformers import AutoModelForCausalLM

from data_utils import artefact, blocks, elastic
from data_utils.blocks import block_path
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from miniplm import agreement, criteria, difference, selection
from miniplm.scores import Predictions, Scores
from pretrain.flops import corpus_flops
from pretrain.metrics import read_metrics
from reports import selection_report
from tests import make, programs
from tests.data_utils.test_elastic import content
from tests.miniplm import proxies
from tests.miniplm.proxies import LABELLED, NAMES, SHARD, SHARDS, TRAINED, predict
from tests.programs import one_message as refused

ROWS = SHARD * SHARDS
STORE = "scores/proxy-T-R"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """With a proxy, trained, and its predictions of the whole corpus."""
    base = proxies.make_base(tmp_path_factory.mktemp("a base"))
    run = proxies.train(base, "proxy")
    assert run.code == 0, run.errors
    run = predict(base, STORE)
    assert run.code == 0, run.errors
    (base / "printed").write_text(run.output)
    return base


@pytest.fixture(scope="module")
def true_r() -> np.ndarray:
    return proxies.rows_with_r()[1]


def found_of(base: Path, store: str = STORE) -> dict:
    return json.loads((base / f"{store}-report/agreement.json").read_text())


def test_the_regression_learns_and_its_predictions_agree_with_rows_it_has_not_seen(base, true_r):
    losses = [row["loss"] for row in read_metrics(base / "proxy")]
    assert np.mean(losses[:5]) > 0.8 and np.mean(losses[-10:]) < 0.1
    predicted = Predictions(base / STORE).r
    held_out = np.arange(TRAINED[1] * SHARD, LABELLED[1] * SHARD)
    held_out = held_out[~np.isnan(true_r[held_out])]
    r, mine = true_r[held_out], predicted[held_out]
    found = found_of(base)
    assert found["rows"] == len(held_out) == SHARD - 1
    assert found["pearson"] == pytest.approx(stats.pearsonr(r, mine)[0], abs=1e-5)
    assert found["spearman"] == pytest.approx(stats.spearmanr(r, mine)[0], abs=1e-2)
    assert min(found["pearson"], found["spearman"], found["agreement"]) > 0.9
    assert np.abs(r - mine).mean() < 0.05  # in nats again
    printed = (base / "printed").read_text()
    assert (
        f"On {SHARD - 1} rows that it was not trained on: pearson {found['pearson']:.3f}" in printed
    )
    everywhere = ~np.isnan(true_r)
    np.testing.assert_array_equal(np.isnan(predicted), ~everywhere)
    assert stats.pearsonr(true_r[everywhere], predicted[everywhere])[0] > 0.9


def slow_predictions(base: Path) -> np.ndarray:
    """Row by row from the published files, NaN where no token counts."""
    model = AutoModelForCausalLM.from_pretrained(base / "proxy").eval()
    head, config = load_file(base / "proxy/model.safetensors"), model.config
    corpus, values = Corpus(base / "corpus"), np.full(ROWS, np.nan)
    for number in range(ROWS):
        row = torch.tensor(corpus.row(number).astype(np.int64))
        with torch.no_grad():
            hidden = model(row[None, :-1], output_hidden_states=True).hidden_states[-1][0]
        scores = [
            float(hidden[i] @ head["score_head.weight"][0] + head["score_head.bias"][0])
            for i in range(len(row) - 1)
            if row[i] != proxies.EOS
        ]
        if scores:
            values[number] = np.mean(scores) * config.score_std + config.score_mean
    return values


def test_predictions_equal_a_slow_version_whatever_the_batches(base):
    expected = slow_predictions(base)
    np.testing.assert_allclose(Predictions(base / STORE).r, expected, rtol=1e-4, atol=1e-5)
    for save, sizes in (
        ("scores/one", {"tokens_per_batch": 1, "block_size": 7}),
        ("scores/many", {"tokens_per_batch": 16_384, "block_size": 1000}),
    ):
        run = predict(base, save, **sizes)
        assert run.code == 0, run.errors
        np.testing.assert_allclose(Predictions(base / save).r, expected, rtol=1e-4, atol=1e-5)


def test_the_store_says_what_it_is_and_cost(base):
    manifest = artefact.require(base / STORE, "scores", "", contents=True)
    assert manifest.content["type"] == "proxy differences"
    arrays = load_file(block_path(base / STORE, 0))
    assert {k: v.dtype for k, v in arrays.items()} == {"r": torch.float32, "count": torch.int32}
    model = AutoModelForCausalLM.from_pretrained(base / "proxy")
    trunk = sum(p.numel() for p in model.base_model.parameters())
    trunk -= model.get_input_embeddings().weight.numel()
    tokens = sum(shard.size for shard in Corpus(base / "corpus").shards)
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    width = model.config.hidden_size // heads
    each = 2 * trunk + 2 * layers * heads * width * tokens / ROWS
    assert manifest.counts["flops"] == pytest.approx(each * tokens)
    assert manifest.counts["without_counted_tokens"] == 2
    assert make.run("tools/verify.py", base / STORE).stdout.endswith("1 artefacts are whole\n")


def test_costs_beside_the_teachers(base):
    found = found_of(base)
    counts = artefact.read_manifest(base / "proxy").counts
    corpus = Corpus(base / "corpus")
    assert found["training_flops"] == counts["student_flops"] and counts["teacher_flops"] == 0
    assert found["scoring_flops"] == artefact.read_manifest(base / STORE).counts["flops"]
    assert found["teacher_flops"] == corpus_flops(base / "teacher", corpus)
    part = Corpus(base / "corpus", shards=LABELLED)
    both = [corpus_flops(base / name, part) for name in ("teacher", "reference")]
    assert found["labels_flops"] == sum(both)
    share = (found["training_flops"] + found["scoring_flops"]) / found["teacher_flops"]
    assert found["proxy_share"] == pytest.approx(share)
    assert found["share_with_labels"] == pytest.approx(share + sum(both) / found["teacher_flops"])


def test_two_workers_and_one_that_is_killed_make_the_same_bytes(base):
    expected = content(base / STORE)
    settings = {"model_path": "proxy", "data_dir": "corpus", "block_size": 40}
    settings |= {"tokens_per_batch": 300, "save": "scores/several"}
    words = [base, *programs.flags(settings)]
    for name in ("log.out", "log.err"):
        (base / name).touch()
    (dead,) = start(words, 4)  # killed before it writes its third block
    assert dead.exitcode == -signal.SIGKILL, (base / "log.err").read_text()
    published = list((base / "scores/several").glob("block_*.safetensors"))
    assert len(published) == 2 and not (base / "scores/several" / artefact.MANIFEST).exists()
    assert [w.exitcode for w in start(words, 0, 0)] == [0, 0], (base / "log.err").read_text()
    assert content(base / "scores/several") == expected
    again = programs.call(base, "miniplm.proxy", *words)
    assert again.code == 0 and "is there already" in again.output
    assert found_of(base, "scores/several") == found_of(base)


def start(words: list, *kills: int) -> list:
    """A worker for each of kills, all at once; when they have ended."""
    workers = [programs.CONTEXT.Process(target=run_and_die, args=(words, k)) for k in kills]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    return workers


def run_and_die(words: list, kill: int) -> None:
    """The program's main() with fast claims, killed at a half call of write() unless kill is 0."""
    blocks.HEARTBEAT, blocks.STALE, blocks.FIRST_WAIT = 0.2, 2.0, 0.05
    if kill:
        programs.kill_at(elastic.BlockFiles, "write", kill)
    programs.main("miniplm.proxy", [str(w) for w in words], {}, Path(words[0]) / "log.out")


def test_one_and_two_processes_train_the_same_proxy_also_after_a_stop(base):
    """Two processes until step 6, the rest by one: the head is in the states that are converted."""
    for processes, changes in ((2, {"stop_step": 6}), (1, {"stop_step": 12, "micro_batch": 8})):
        run = proxies.train(base, "two", processes, **changes)
        assert run.code == 0, run.errors
    assert "converting" in run.output and "after step 6" in run.output
    for name in ("loss", "grad_norm", "absolute_error"):
        alone, both = ([row[name] for row in read_metrics(base / n)] for n in ("proxy", "two"))
        assert both == pytest.approx(alone[:12], rel=1e-3), name


def select(monkeypatch, base: Path, *flags: object) -> tuple[list[int], artefact.Manifest]:
    words = [str(w) for w in (base, "--data-dir", "corpus", *NAMES, *flags)]
    monkeypatch.setattr(sys, "argv", ["program", *words])
    selection.main()
    settings = selection.parse(selection.Settings, words, positional="base_path ratio")
    folder = base / settings.output_folder()
    selected = Corpus(folder)
    return selected.side("source_row", np.arange(len(selected))).tolist(), artefact.read_manifest(
        folder
    )


def test_a_selection_by_the_proxy(base, monkeypatch, true_r):
    """From all rows that it has scored; beyond the labelled ones they are those of the true r."""
    rows, manifest = select(monkeypatch, base, "--criterion", "proxy")
    predicted = Predictions(base / STORE).r
    order = sorted(
        (i for i in range(ROWS) if predicted[i] == predicted[i]), key=lambda i: -predicted[i]
    )
    assert rows == sorted(order[: (ROWS - 2) // 2])
    assert manifest.counts["without_a_defined_difference"] == 2
    assert manifest.counts["not_scored"] == 0
    assert manifest.content["criterion"] == "proxy"
    assert manifest.input_fingerprint("scores") == artefact.read_manifest(base / STORE).fingerprint
    assert "pile-proxy_samp-T-R-r0.5" in str(manifest.folder)
    unlabelled = [row for row in order if not LABELLED[0] * SHARD <= row < LABELLED[1] * SHARD]
    threshold = np.nanmedian(true_r)
    alike = [(true_r[row] > threshold) == (row in set(rows)) for row in unlabelled]
    assert np.mean(alike) > 0.85


def test_only_what_the_proxy_has_scored_is_chosen_from(base, monkeypatch):
    run = predict(base, "scores/proxy-T-Q", shards="4:6")
    assert run.code == 0, run.errors
    assert f"On {SHARD - 1} rows" in run.output
    rows, manifest = select(monkeypatch, base, "--criterion", "proxy", "--ref-name", "Q")
    assert len(rows) == (2 * SHARD - 1) // 2 and min(rows) >= 4 * SHARD
    assert manifest.counts["not_scored"] == 4 * SHARD
    run = predict(base, "scores/rest", shards="5:6")
    assert (
        run.code == 0 and "no scored row has an r that the proxy was not trained on" in run.output
    )
    assert found_of(base, "scores/rest")["rows"] == 0


def test_a_report_of_what_the_proxy_keeps(base):
    words = [str(base), *NAMES, "--criterion", "proxy"]
    settings = difference.parse(selection_report.Settings, words, "base_path")
    selection_report.draw_report(settings)
    summary = json.loads((base / "scores/diff-T-R-report-proxy/summary.json").read_text())
    assert summary["criterion"] == "proxy"
    assert summary["all"]["sequences"] == (LABELLED[1] - LABELLED[0]) * SHARD - 2
    assert summary["kept"]["mean_r"] > summary["all"]["mean_r"] + 0.1


def test_other_criteria_and_stores_are_refused(base, monkeypatch):
    # A proxy's store where differences are looked for, and the other way round.
    for path, target in (("diff-T-X", STORE), ("proxy-T-X", "scores/diff-T-R")):
        (base / "scores" / path).symlink_to(base / target)
    for criterion, what in (
        *((rank.__name__, "not a store of differences") for rank in criteria.STORED),
        ("proxy", "not a store of a proxy's predictions"),
    ):
        with pytest.raises(InputError, match=what):
            select(monkeypatch, base, "--ref-name", "X", "--criterion", criterion)
    with pytest.raises(InputError, match="there are no scores .*proxy/score.sh"):
        select(monkeypatch, base, "--ref-name", "Y", "--criterion", "proxy")
    with pytest.raises(InputError, match="scores are of another corpus"):
        select(monkeypatch, base, "--data-dir", "other", "--criterion", "proxy")
    with pytest.raises(InputError, match="this is not a score store"):
        Scores(base / STORE, "")
    (base / "scores/P").symlink_to(base / STORE)
    names = [str(base), *NAMES, "--teacher-name", "P"]
    with pytest.raises(InputError, match="this is not a score store"):
        difference.compute(difference.parse(difference.Settings, names, "base_path"))


def test_models_that_are_no_proxies_are_refused(base):
    run = predict(base, "scores/none", model_path="reference")
    refused(run, 2, "not trained to predict difference scores", "proxy/train.sh")
    run = programs.call(
        base, "miniplm.score", base, "--model-path", "proxy", "--data-dir", "corpus",
        "--save", "scores/none", "--shards", "5:6",
    )  # fmt: skip
    refused(run, 2, "no place for some weights", "score_head")


def test_rows_that_the_reference_was_trained_on(base):
    """A proxy that began as it is told so: the same refusal as for the reference."""
    proxies.split(base, "ref part", (5, 6))
    words = "--total-steps 1 --warmup-steps 0 --global-batch 2 --micro-batch 2 --save began"
    words += " --model-path reference --tokenizer-path tokenizer"
    run = programs.call(base, "pretrain.train", base, *words.split(), "--data-dir", "ref part")
    assert run.code == 0, run.errors
    run = proxies.train(base, "seen", model_path="began", total_steps=1, warmup_steps=0)
    assert run.code == 0, run.errors
    refused(predict(base, "scores/seen", model_path="seen"), 2, "was trained on some", "than 5:6")
    run = predict(base, "scores/seen", model_path="seen", shards="0:5")
    assert run.code == 0, run.errors
    allowed = {"model_path": "seen", "allow_reference_data": "true"}
    assert predict(base, "scores/proxy-T-S", **allowed).code == 0
    select_words = [base, "--data-dir", "corpus", *NAMES, "--ref-name", "S", "--criterion", "proxy"]
    run = programs.call(base, "miniplm.selection", *select_words)
    refused(run, 2, "--allow-reference-data")


def test_figures_against_slow_ones():
    generator = np.random.default_rng(4)
    for _ in range(50):
        n = int(generator.integers(2, 40))
        r, other = generator.integers(0, 9, (2, n)).astype(float)
        found = agreement.figures(r, other)
        kept = [set(sorted(range(n), key=lambda i: (-v[i], i))[: n // 2]) for v in (r, other)]
        alike = np.mean([(i in kept[0]) == (i in kept[1]) for i in range(n)])
        assert found["agreement"] == pytest.approx(alike) and found["rows"] == n
        if r.std() and other.std():
            assert found["pearson"] == pytest.approx(stats.pearsonr(r, other)[0])
            assert found["spearman"] == pytest.approx(stats.spearmanr(r, other)[0])
        else:
            assert found["pearson"] is None
    nothing = {"pearson": None, "spearman": None, "agreement": None}
    assert agreement.figures(np.ones(1), np.ones(1)) == {"rows": 1, **nothing}
