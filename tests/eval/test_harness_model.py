"""Log-likelihoods against full logits, beginnings of sequence, and shares of the ranks."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from cluster.processes import Processes
from data_utils.errors import ArtefactError, InputError
from data_utils.tokenizer import load_tokenizer
from eval import harness_checkpoints, harness_model
from eval.harness_model import HarnessModel
from pretrain import losses
from pretrain.models import load_model
from tests import make

VOCAB, POSITIONS = 600, 24
ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer_folder) -> Path:
    """A model of few positions."""
    config = {**make.qwen_config(VOCAB), "max_position_embeddings": POSITIONS}
    return make.save_model(tmp_path_factory.mktemp("model"), config, 0, tokenizer_folder)


@pytest.fixture
def model(folder, monkeypatch) -> HarnessModel:
    monkeypatch.setattr(harness_model, "all_sum", lambda values, *_: values)
    loaded = load_model(folder, "fp32", "sdpa").eval()
    return HarnessModel(loaded, load_tokenizer(folder), ALONE, tokens_per_batch=100)


def requests(*pairs: tuple[str, str]) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=pair) for pair in pairs]


def full_logits(folder: Path, ids: list[int], count: int) -> tuple[float, bool]:
    """Sum of the last `count` log-probabilities of the row, and whether each is the largest."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        table = model(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(1)[-count:]
    labels = torch.tensor(ids[-count:])
    return float(table[range(count), labels].sum()), bool((table.argmax(1) == labels).all())


def test_log_likelihoods_equal_full_logits(model, folder):
    """Of contexts that are cut, that are empty, that end in a space, and greedy continuations."""
    words = " ".join(make.documents(3)).split()
    pairs = [(" ".join(words[n : n + n % 9 + 1]), f" {words[n + 20]}") for n in range(40)]
    pairs += [("", "import"), ("import ", "os"), (" ".join(words[:60]), " end"), ("import", " os")]
    head = model.model.get_output_embeddings()
    head.register_forward_hook(lambda *_: pytest.fail("all logits at once"))
    found = model.loglikelihood(requests(*pairs), disable_tqdm=True)
    cut = 0
    for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
        if context:
            ids = model.tok_encode(context + continuation)
            count = len(ids) - len(model.tok_encode(context.rstrip()))
        else:
            ids = [model.eot_token_id, *model.tok_encode(continuation)]
            count = len(ids) - 1
        cut += len(ids) > POSITIONS + 1
        expected = full_logits(folder, ids[-(POSITIONS + 1) :], count)
        assert value == pytest.approx(expected[0], abs=1e-5) and greedy is expected[1]
    assert model.truncated == cut > 5
    assert not any(greedy for _, greedy in found)
    with torch.no_grad():
        hidden = harness_model.hidden_states(model.model, torch.tensor([ids]))
        best = int((hidden[0, -1] @ head.weight.T).argmax())
    ((value, greedy),) = model._loglikelihood_tokens([(("", ""), ids, [best])])
    assert greedy and value == pytest.approx(full_logits(folder, [*ids, best], 1)[0], abs=1e-5)


def test_three_ranks_share_the_batches_of_one(model, monkeypatch):
    rows = make.random_rows(31, VOCAB, 0, longest=POSITIONS)
    packed = harness_model.Requests(
        np.concatenate(rows).astype(np.int32),
        np.array([len(row) for row in rows]),
        np.array([max(1, len(row) // 2) for row in rows]),
    )
    expected = harness_model.score(model.model, packed, 60, ALONE)
    assert (expected[0] < 0).all()
    parts = []
    monkeypatch.setattr(harness_model, "all_sum", lambda values, *_: parts.append(values) or values)
    for rank in range(3):
        harness_model.score(model.model, packed, 60, Processes(rank, 3, ALONE.device))
    assert (np.sum(parts, axis=0)[:31] == expected[0]).all()
    shares = [np.count_nonzero(part[:31]) for part in parts]
    assert sum(shares) == 31 and min(shares) > 0


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_greedy_labels_by_chunks(rows):
    hidden, head = torch.randn(23, 8), torch.randn(31, 8)
    logits = hidden @ head.T
    labels = torch.where(torch.arange(23) % 2 == 0, logits.argmax(1), torch.tensor(4))
    log_probs, greedy = losses.label_scores(hidden, head, labels, rows)
    assert (greedy == (logits.argmax(1) == labels)).all()
    expected = logits.log_softmax(1)[range(23), labels]
    assert torch.allclose(log_probs, expected, atol=1e-6)


def test_continuations_that_cannot_be_scored(model):
    with pytest.raises(InputError, match="no tokens, or too many"):
        model.loglikelihood(requests(("a", "")), disable_tqdm=True)
    with pytest.raises(InputError, match="no tokens, or too many"):
        model.loglikelihood(requests(("a", " b" * 99)), disable_tqdm=True)
    with pytest.raises(InputError, match="does not generate"):
        model.generate_until([])
    model.model.get_output_embeddings().weight.data[3] = float("nan")
    with pytest.raises(ArtefactError, match="log-likelihood of ' b' is nan"):
        model.loglikelihood(requests(("a", " b")), disable_tqdm=True)


@pytest.mark.parametrize(
    "kind, own, add_bos, expected",
    [
        ("llama", True, "auto", True),
        ("llama", False, "auto", False),  # SmolLM2: a BOS that nobody trained with
        ("qwen2", True, "auto", False),
        ("llama", False, "true", True),
        ("llama", True, "false", False),
    ],
)
def test_which_models_begin_with_bos(kind, own, add_bos, expected, folder, tmp_path):
    """As the paper evaluated: Llama and Mistral do. own: the tokenizer adds it by itself."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if own:
        bos = ("<|bos|>", tokenizer.bos_token_id)
        template = TemplateProcessing(single="<|bos|> $A", special_tokens=[bos])
        tokenizer.backend_tokenizer.post_processor = template
    config = {**make.qwen_config(VOCAB), "model_type": kind}
    make.save_model(tmp_path, config, 0)
    tokenizer.save_pretrained(tmp_path)
    found = harness_checkpoints.examine("a", "b", tmp_path, add_bos)
    assert found.add_bos is expected
    model = HarnessModel(
        load_model(tmp_path, "fp32", "sdpa"), load_tokenizer(tmp_path), ALONE, add_bos=expected
    )
    bos = tokenizer.bos_token_id
    assert (model.tok_encode("a b")[0] == bos) is expected
    assert model.tok_encode("<|bos|>a b").count(bos) == 1
    assert model.tok_encode("a b", add_special_tokens=False)[0] != bos
    assert model.prefix_token_id == (bos if expected else tokenizer.eos_token_id)
