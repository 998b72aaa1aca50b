"""A model as lm-eval asks for it: log-likelihoods of continuations, computed by all processes.

Rank 0 runs lm-eval; the others wait in `serve` for the batches that are theirs. The batches depend
on the requests and the token budget alone, so that any number of processes finds the same numbers.
Logits exist only for a chunk of the continuations' positions (pretrain/losses.py).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import resolve_max_length
from torch import nn
from tqdm import tqdm

from cluster.processes import Processes, all_sum
from data_utils.errors import ArtefactError, InputError
from pretrain.log_probs import batches_by_length
from pretrain.losses import label_scores
from pretrain.models import head_weight, hidden_states, load_model

ONLY_LIKELIHOODS = "choose tasks of output_type multiple_choice or loglikelihood"


class Requests(NamedTuple):
    """Rows to run the model on, back to back: the last `counted` tokens of each are scored."""

    tokens: np.ndarray  # [sum of lengths] int32
    lengths: np.ndarray  # [N] int64
    counted: np.ndarray  # [N] int64


class Checkpoint(NamedTuple):
    """What all processes load."""

    folder: Path
    precision: str
    attention: str


class HarnessModel(TemplateLM):
    """A loaded model with the tokenizer of data_utils/tokenizer.py, for rank 0.

    add_bos: put the beginning-of-sequence token before every context. An empty context is one
    token: that one, or the end-of-text, which is all that our corpora have between documents.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer,
        processes: Processes,
        *,
        add_bos: bool = False,
        tokens_per_batch: int = 16_384,
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.processes = model, tokenizer, processes
        self.bos_id = tokenizer.bos_token_id if add_bos else None
        self.tokens_per_batch = tokens_per_batch
        self.max_length = resolve_max_length(model.config, tokenizer)
        self.truncated = 0  # requests that lost the left end of their context

    @property
    def eot_token_id(self) -> int:
        """Id of the end-of-text token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        return self.eot_token_id if self.bos_id is None else self.bos_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Ids of a text, with one BOS in front where the model had one, unless told otherwise."""
        ids = self.tokenizer.backend_tokenizer.encode(string, add_special_tokens=False).ids
        if self.bos_id is None or add_special_tokens is False or ids[:1] == [self.bos_id]:
            return ids
        return [self.bos_id, *ids]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether it is the greedy continuation) of each request.

        Contexts that do not fit are cut from the left, as lm-eval's own HFLM does.
        """
        rows = [self._row(*request) for request in requests]
        packed = Requests(
            np.concatenate([np.array(row, np.int32) for row in rows]),
            np.array([len(row) for row in rows]),
            np.array([len(continuation) for _, _, continuation in requests]),
        )
        share((packed, self.tokens_per_batch), self.processes)
        sums, greedy = score(self.model, packed, self.tokens_per_batch, self.processes)
        if not np.isfinite(sums).all():
            bad = int(np.flatnonzero(~np.isfinite(sums))[0])
            raise ArtefactError(
                f"the log-likelihood of {requests[bad][0][1][:60]!a} is {sums[bad]}",
                fix="use PRECISION=bf16 or fp32, or another checkpoint",
            )
        return list(zip(sums.tolist(), greedy.tolist(), strict=True))

    def _row(self, texts: tuple[str, str], context: list[int], continuation: list[int]) -> list:
        if not 0 < len(continuation) <= self.max_length:
            raise InputError(
                f"a continuation of a task has no tokens, or too many ({texts[1][:60]!a})",
                expected=f"1 to {self.max_length}",
                found=len(continuation),
                fix="correct the task's data, or leave the task out",
            )
        row = context + continuation
        self.truncated += len(row) > self.max_length + 1
        return row[-(self.max_length + 1) :]

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False) -> list[float]:
        """Refused (InputError)."""
        raise InputError("the harness does not compute perplexities of texts", fix=ONLY_LIKELIHOODS)

    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """Refused (InputError)."""
        raise InputError("the harness does not generate text", fix=ONLY_LIKELIHOODS)


def load(checkpoint: Checkpoint, processes: Processes) -> nn.Module:
    """The checkpoint's model on this process's device."""
    model = load_model(checkpoint.folder, checkpoint.precision, checkpoint.attention)
    return model.eval().to(processes.device)


def share(order: object, processes: Processes) -> object:
    """What rank 0 gives, on all ranks; the others call it with None."""
    box = [order]
    if processes.world > 1:
        with processes.together("waiting for rank 0"):
            dist.broadcast_object_list(box, src=0, device=processes.device)
    return box[0]


def serve(processes: Processes) -> None:
    """What ranks other than 0 do: load and score as rank 0 says, until it gives None."""
    model = None
    while (order := share(None, processes)) is not None:
        if isinstance(order, Checkpoint):
            model = None  # two do not fit where one does
            model = load(order, processes)
        else:
            score(model, *order, processes)


@torch.inference_mode()
def score(
    model: nn.Module, requests: Requests, tokens_per_batch: int, processes: Processes
) -> tuple[np.ndarray, np.ndarray]:
    """(log-probability of each row's counted tokens, [N] float64; whether all are greedy, [N]).

    Every process calls it and scores its share of the batches.
    """
    count = len(requests.lengths)
    starts = np.cumsum(requests.lengths) - requests.lengths
    sums, greedy = np.zeros(count), np.zeros(count)
    batches = list(batches_by_length(requests.lengths, np.arange(count), tokens_per_batch))
    mine = batches[processes.rank :: processes.world]
    bar = tqdm(
        total=sum(map(len, mine)),
        unit="request",
        desc="evaluate",
        mininterval=1,
        disable=not processes.first,
    )
    with bar:
        for at in mine:
            rows = [requests.tokens[starts[i] : starts[i] + requests.lengths[i]] for i in at]
            sums[at], greedy[at] = score_batch(model, rows, requests.counted[at])
            bar.update(len(at))
    found = all_sum([*sums, *greedy], processes, "the log-likelihoods")
    return np.array(found[:count]), np.array(found[count:]) > 0


def score_batch(
    model: nn.Module, rows: list[np.ndarray], counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """score for the rows of one batch, padded on the right, [B] each."""
    head = head_weight(model)
    lengths = np.array([len(row) for row in rows]) - 1
    inputs = np.zeros((len(rows), lengths.max()), np.int64)
    labels = np.zeros_like(inputs)
    for line, row in enumerate(rows):
        inputs[line, : len(row) - 1] = row[:-1]
        labels[line, : len(row) - 1] = row[1:]
    positions = np.arange(inputs.shape[1])
    last = lengths[:, None]
    scored = (positions < last) & (positions >= last - counted[:, None])
    places = torch.from_numpy(np.flatnonzero(scored)).to(head.device)
    hidden = hidden_states(model, torch.from_numpy(inputs).to(head.device)).flatten(0, 1)
    chosen = torch.from_numpy(labels[scored]).to(head.device)
    log_probs, best = label_scores(hidden[places], head, chosen)
    ends = np.cumsum(counted) - counted
    sums = np.add.reduceat(log_probs.double().cpu().numpy(), ends)
    return sums, np.minimum.reduceat(best.cpu().numpy(), ends)
