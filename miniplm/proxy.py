"""Score a corpus with a proxy: the difference r that a small model predicts of each row.

    bash scripts/miniplm/proxy/score.sh BASE_PATH
    python3 miniplm/proxy.py BASE_PATH --model-path checkpoints/qwen/104M_proxy

MiniPLM-prx of arXiv 2410.17215: teacher and reference score a sample of the corpus, a proxy learns
r of it (pretrain/objectives/score_regression.py) and scores the rest alone. Reads a corpus and the
proxy; writes the store BASE_PATH/results/scores/pile/qwen-1025/proxy-qwen_1.8B-qwen_104M as
miniplm/score.py does, for --criterion proxy, and beside it ...-report/agreement.json: how far it
agrees with the rows that have an r and that it was not trained on, and what both cost.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cluster.place import die_with_launcher, launched, local_rank
from cluster.stop import Stop
from cluster.worker import run
from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.elastic import Arrays, Compute
from data_utils.flags import flag, parse
from miniplm import agreement, score
from miniplm.scores import PREDICTED, examine, seen_shards
from pretrain.flops import corpus_flops, trunk_flops
from pretrain.log_probs import Batch, counted_states
from pretrain.score_head import MEAN, STD, load_scorer, position_scores, row_means


@dataclass
class Settings(score.Settings):
    """Score a corpus with a proxy."""

    model_path: str = flag("checkpoints/qwen/104M_proxy", "the proxy")
    save: str = flag(
        "results/scores/pile/qwen-1025/proxy-qwen_1.8B-qwen_104M", "folder of the predictions"
    )


def check(argv: list[str], world: int) -> Path:
    """Check the user's input before any process is started; returns the store's folder."""
    scoring = prepare(parse(Settings, argv, positional="base_path"))
    scoring.job.is_done()
    return scoring.job.output.folder


def main() -> None:
    settings = parse(Settings, positional="base_path")
    if launched():
        die_with_launcher()
    score.stopped_by_signals(lambda stop: predict(settings, stop))


def prepare(settings: Settings) -> score.Scoring:
    """Open and check corpus, proxy and tokenizer; raises InputError or ArtefactError."""
    (store,) = PREDICTED
    scoring = score.prepare(settings, store, "miniplm/proxy.py", seen_before)
    agreement.labels_of(scoring.model_folder)
    return scoring


def seen_before(corpus: Corpus, proxy_folder: Path) -> str:
    """The corpus's shards that the model was trained on that the proxy began as; "" for none.

    Their r would mean little, as a reference's would. What the proxy itself learned from counts as
    any other row.
    """
    manifest = artefact.read_manifest(proxy_folder)
    entry = manifest.inputs.get("model") if manifest else None
    place = artefact.input_place(proxy_folder, entry) if entry else None
    if place is None or not place.is_dir():
        return ""
    began = artefact.read_manifest(place)
    same = began is not None and began.fingerprint == entry["fingerprint"]
    return seen_shards(corpus, place) if same else ""


def predict(settings: Settings, stop: Stop) -> None:
    """Do the missing blocks together with all other workers, then compare with the labels."""
    scoring = prepare(settings)
    flops = corpus_flops(scoring.model_folder, scoring.corpus, trunk_flops)
    load_proxy = functools.partial(load, scoring, settings, stop)
    made = scoring.job.run(load_proxy, examine, seen_in_training=scoring.seen, flops=flops)
    if made:
        print(
            f"{made.folder}: r of {made.counts['sequences']:,} sequences predicted, "
            f"{made.counts['without_counted_tokens']} of them without a counted token"
        )
    if local_rank() == 0:
        agreement.compare(scoring.job.output.folder, scoring.corpus, scoring.model_folder)


def load(scoring: score.Scoring, settings: Settings, stop: Stop) -> tuple[Compute, str]:
    """(the function that scores a block's rows, device and precision)."""
    model, made_on = score.load_model_of(scoring, settings, load_scorer)
    compute = functools.partial(predict_rows, model, scoring, settings.tokens_per_batch, stop)
    return compute, made_on


def predict_rows(
    model: torch.nn.Module,
    scoring: score.Scoring,
    tokens_per_batch: int,
    stop: Stop,
    rows: np.ndarray,
    advance: Callable[[int], object],
) -> Arrays:
    """r float32, 0 where no token counts, and count int32 of the rows, [len(rows)] each.

    An r that is not finite is an ArtefactError, which names the row.
    """
    r, counts = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int32)
    states = counted_states(model, scoring.corpus, rows, scoring.eos_id, tokens_per_batch)
    with stop.deferred(), contextlib.closing(states), torch.inference_mode():
        for batch, hidden in states:
            at = batch.at
            r[at], counts[at] = predicted(model, batch, hidden), batch.counts
            score.refuse_non_finite(scoring, rows[at], r[at], counts[at])
            advance(len(at))
            stop.check()
    return {"r": np.where(counts > 0, r, np.float32(0)), "count": counts}


def predicted(model: torch.nn.Module, batch: Batch, hidden: torch.Tensor) -> np.ndarray:
    """r of each row of a batch, in nats per token, [B] float32."""
    scores = torch.zeros(batch.inputs.shape, device=hidden.device)
    counted = torch.zeros(batch.inputs.shape, dtype=torch.bool, device=hidden.device)
    places = batch.places.to(hidden.device)
    scores.view(-1)[places] = position_scores(model.score_head, hidden)
    counted.view(-1)[places] = True
    values = row_means(scores, counted) * getattr(model.config, STD) + getattr(model.config, MEAN)
    return values.cpu().numpy()


if __name__ == "__main__":
    run(main)
