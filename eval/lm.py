"""Language-modelling loss and perplexity of a model on a held-out corpus.

    bash scripts/eval/lm.sh BASE_PATH --model-path results/miniplm/qwen/200M --ckpt-name 200M
    python3 eval/lm.py BASE_PATH --model-path ... --ckpt-name ...

Reads a model and a corpus; writes BASE_PATH/results/eval/lm/CKPT_NAME.json and, beside it, .npy:
the loss of every sequence (float64, corpus order). Sequences count equally, whatever their length.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from data_utils import artefact, atomic_files
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import check_name
from pretrain.belonging import end_of_text, require_belonging
from pretrain.log_probs import mean_loss, row_log_probs
from pretrain.models import GET_MODEL, Attention, Precision, load_model, resolve_precision


@dataclass
class Settings:
    """Evaluate the language-modelling loss of a model."""

    base_path: str = flag(".", "folder that contains processed_data/, checkpoints/ and results/")
    model_path: str = flag("", "the model to evaluate")
    ckpt_name: str = flag("", "name of the result; default: the last part of --model-path")
    data_dir: str = flag("processed_data/dclm/qwen-1025", "the held-out corpus")
    split: str = flag("test", "prefix of its shard files")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    save: str = flag("results/eval/lm", "folder of the results")
    limit: int = flag(0, "evaluate only the first sequences; 0: all")
    tokens_per_batch: int = flag(16_384, "tokens per forward pass, padding included")
    precision: Precision = flag("auto", "auto: fp16 on a GPU, fp32 on a CPU")
    attention: Attention = flag("sdpa", "attention of the model")

    def __post_init__(self) -> None:
        if not self.model_path:
            raise ValueError("--model-path is missing")
        check_name("--split", self.split)
        self.ckpt_name = check_name("--ckpt-name", self.ckpt_name or Path(self.model_path).name)


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir), settings.split)
    model_folder = under(base, settings.model_path)
    model_identity = artefact.identity(model_folder, "model", GET_MODEL)
    require_belonging(corpus, model_folder)
    precision = resolve_precision(settings.precision)
    eos_id = end_of_text(corpus, under(base, settings.tokenizer_path))
    model = load_model(model_folder, precision, settings.attention).eval()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    rows = np.arange(min(settings.limit or len(corpus), len(corpus)))
    losses = evaluate(model, corpus, rows, eos_id, settings.tokens_per_batch)
    folder = under(base, settings.save)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_files.atomic_file(folder / f"{settings.ckpt_name}.npy") as file:
        np.save(file, losses)
    result = {
        "model": {"path": settings.model_path, **model_identity},
        "corpus": {"path": settings.data_dir, "split": settings.split, **corpus.identity},
        "sequences": len(losses),
        "loss": float(losses.mean()),
        "perplexity": float(np.exp(losses.mean())),
        "precision": precision,
    }
    atomic_files.write_json(folder / f"{settings.ckpt_name}.json", result)
    print(
        f"{settings.ckpt_name}: loss {result['loss']:.4f} nats per token, perplexity "
        f"{result['perplexity']:.2f} over {len(losses):,} sequences -> "
        f"{folder / settings.ckpt_name}.json"
    )


def evaluate(
    model: torch.nn.Module, corpus: Corpus, rows: np.ndarray, eos_id: int, tokens_per_batch: int
) -> np.ndarray:
    """Loss of each row in nats per token, [len(rows)] float64; raises if one is not finite."""
    losses = np.zeros(len(rows))
    with tqdm(total=len(rows), unit="seq", desc="evaluate", mininterval=1) as bar:
        for at, sums, counts in row_log_probs(model, corpus, rows, eos_id, tokens_per_batch):
            losses[at] = mean_loss(sums, counts)
            bad = at[~np.isfinite(losses[at])]
            if len(bad):
                raise ArtefactError(
                    f"the loss is {losses[bad[0]]} at {corpus.describe(int(rows[bad[0]]))}",
                    fix="use PRECISION=bf16 or fp32, or another checkpoint",
                )
            bar.update(len(at))
    if len(losses) == 0:
        raise InputError("the corpus is empty", where=corpus.folder, fix="give another DATA_DIR")
    return losses


if __name__ == "__main__":
    run(main)
