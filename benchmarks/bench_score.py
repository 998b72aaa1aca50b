"""Scoring: chunked log-probabilities against the full fp32 logits of transformers.

    .venv/bin/python benchmarks/bench_score.py [--hidden 512] [--layers 2] [--runs 5]

Obvious: model(...).logits.float() of the whole batch, then cross_entropy without reduction. Ours:
pretrain/log_probs.py as miniplm/score.py calls it. Both sides score the same 4 rows of 1,025 tokens
with the same random Qwen2 of vocabulary 151,936. Memory is the peak over that of the same step with
hidden.sum() + head.sum() in place of the scores, so that weights and activations cancel.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import json
import tempfile
import time

import numpy as np
import torch

from benchmarks import harness
from data_utils.corpus import Corpus
from data_utils.program import CODE_ROOT
from data_utils.shards import token_type, write_shard
from pretrain.log_probs import row_log_probs
from pretrain.losses import inputs_and_labels
from pretrain.models import head_weight, hidden_states, new_model

ROWS, LENGTH, VOCAB, EOS = 4, 1025, 151_936, 151_643


def main() -> None:
    options = harness.options(__doc__, hidden=512, layers=2, folder="")
    if options.side:
        measure(options.side, Path(options.folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_input(Path(folder), options.hidden, options.layers)
        harness.compare("score", __file__, ["--folder", folder], runs=options.runs)


def write_input(folder: Path, hidden: int, layers: int) -> None:
    """The model's configuration and a corpus of random ids with end-of-text tokens inside."""
    config = json.loads(
        (CODE_ROOT / "configs/models/qwen/104M_ref.json").read_text(encoding="utf-8")
    )
    config.update(hidden_size=hidden, num_hidden_layers=layers, vocab_size=VOCAB)
    (folder / "model.json").write_text(json.dumps(config), encoding="utf-8")
    tokens = np.random.default_rng(0).integers(0, EOS, (ROWS, LENGTH))
    tokens[:, 100::200] = EOS
    write_shard(folder / "data_0", np.full(ROWS, LENGTH), list(tokens), token_type(VOCAB))


@torch.inference_mode()
def measure(side: str, folder: Path) -> None:
    """One step of a side, after one without its logits."""
    model, corpus = new_model(folder / "model.json", 0, "sdpa").eval(), Corpus(folder)
    tokens, lengths = (torch.from_numpy(part) for part in corpus.batch(np.arange(ROWS), EOS))
    harness.reset_peak_memory()
    (hidden_states(model, tokens[:, :-1]).sum() + head_weight(model).sum()).item()
    base = harness.peak_memory()
    harness.reset_peak_memory()
    started, used = time.perf_counter(), time.process_time()
    sums = ours(model, corpus) if side == harness.OURS else obvious(model, tokens, lengths)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    # Rounded: the sides add up in different orders.
    output = " ".join(f"{value:.1f}" for value in sums)
    harness.report(seconds, output, harness.peak_memory() - base, {"processor time": used})


def obvious(model: torch.nn.Module, tokens: torch.Tensor, lengths: torch.Tensor) -> np.ndarray:
    """Sums of the counted log-probabilities from the logits of the whole batch."""
    inputs, labels, counted = inputs_and_labels(tokens, lengths, EOS)
    logits = model(input_ids=inputs, use_cache=False).logits.float()
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none"
    )
    return -(losses.view_as(labels) * counted).sum(dim=1).numpy()


def ours(model: torch.nn.Module, corpus: Corpus) -> np.ndarray:
    """The same as the scoring does it."""
    sums = np.zeros(ROWS, np.float32)
    for at, batch_sums, _ in row_log_probs(model, corpus, np.arange(ROWS), EOS, ROWS * LENGTH):
        sums[at] = batch_sums
    return sums


if __name__ == "__main__":
    main()
