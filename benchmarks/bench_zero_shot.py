"""Zero-shot tasks: log-likelihoods of continuations, ours against lm-eval's own way.

    .venv/bin/python benchmarks/bench_zero_shot.py [--hidden 512] [--layers 2] [--runs 5]

Obvious: log_softmax of all logits of the batch, as lm_eval/models/huggingface.py does. Ours:
eval/harness_model.py. Both sides score the last 16 tokens of the same 8 rows of 257 with the same
random Qwen2 of vocabulary 151,936. Memory is the peak over that of the hidden states alone.
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
from data_utils.program import CODE_ROOT
from eval.harness_model import score_batch
from pretrain.models import hidden_states, new_model

ROWS, LENGTH, COUNTED, VOCAB = 8, 257, 16, 151_936


def main() -> None:
    options = harness.options(__doc__, hidden=512, layers=2, config="")
    if options.side:
        measure(options.side, Path(options.config))
        return
    config = CODE_ROOT / "configs/models/qwen/104M_ref.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    values.update(hidden_size=options.hidden, num_hidden_layers=options.layers, vocab_size=VOCAB)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        path.write_text(json.dumps(values), encoding="utf-8")
        harness.compare("zero shot", __file__, ["--config", path], runs=options.runs)


@torch.inference_mode()
def measure(side: str, config: Path) -> None:
    """One batch of a side, after its hidden states alone."""
    model = new_model(config, 0, "sdpa").eval()
    rows = np.random.default_rng(0).integers(0, VOCAB, (ROWS, LENGTH))
    harness.reset_peak_memory()
    hidden_states(model, torch.from_numpy(rows[:, :-1])).sum().item()
    base = harness.peak_memory()
    harness.reset_peak_memory()
    started = time.perf_counter()
    if side == harness.OURS:
        sums, _ = score_batch(model, list(rows), np.full(ROWS, COUNTED))
    else:
        sums = obvious(model, torch.from_numpy(rows))
    seconds = time.perf_counter() - started
    output = " ".join(f"{value:.1f}" for value in sums)  # the sides add up in different orders
    harness.report(seconds, output, harness.peak_memory() - base)


def obvious(model: torch.nn.Module, rows: torch.Tensor) -> np.ndarray:
    """From the logits of the whole batch."""
    table = model(input_ids=rows[:, :-1], use_cache=False).logits.log_softmax(dim=-1)
    found = table[:, -COUNTED:].gather(2, rows[:, -COUNTED:, None]).squeeze(2)
    return found.double().sum(dim=1).numpy()


if __name__ == "__main__":
    main()
