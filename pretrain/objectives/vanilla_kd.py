"""Vanilla KD: the language-modelling loss mixed with the distance to a live teacher.

loss = (1 - share) x lm_loss + share x kd_loss, share = KD_RATIO (the paper, arXiv 2410.17215, has
0.5 at temperature 1). metrics.jsonl has lm_loss, kd_loss and, of a live teacher, kd_entropy (its
entropy) and kl. The logits of both models exist for one chunk of tokens at a time. With
TEACHER_CACHE no teacher is loaded: the reader's thread reads what is stored of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError, ProgramError
from data_utils.flags import base_folder, flag, under
from data_utils.teacher_cache import TeacherCache
from data_utils.tokenizer import load_tokenizer, vocabulary_size
from pretrain import objective
from pretrain.belonging import require_belonging
from pretrain.distillation import live_rule, stored_rule, teacher_entropy
from pretrain.flops import forward_flops
from pretrain.losses import Rule, head_loss, inputs_and_labels, sequence_mean_weights
from pretrain.models import GET_MODEL, head_weight, hidden_states, load_model
from pretrain.schedule import warmup_stable_decay
from pretrain.settings import TrainSettings
from pretrain.stored_teacher import compared

COMPARED = 4  # rows that a stored teacher and its live one are compared on


@dataclass
class Settings(TrainSettings):
    """Pre-train a student on a corpus with the help of a teacher."""

    teacher_path: str = flag("checkpoints/qwen/1.8B", "the teacher")
    teacher_cache: str = flag("", "a stored teacher (baselines/teacher_cache.py) instead")
    kd_ratio: float = flag(0.5, "share of the distance to the teacher in the loss")
    kd_schedule: Literal["constant", "wsd"] = flag(
        "constant", "wsd: the share warms up, stays and decays, as a learning rate does"
    )
    temperature: float = flag(1.0, "of both distributions in kd_loss")
    reverse_kl: bool = flag(False, "KL(student || teacher) instead of the other direction")
    kd_skip_entropy: float = flag(
        0.0, "share of a micro-batch's tokens, of lowest teacher entropy, that get the LM loss only"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.kd_ratio <= 1:
            raise ValueError(f"--kd-ratio must be between 0 and 1, not {self.kd_ratio}")
        if self.temperature <= 0:
            raise ValueError(f"--temperature must be above 0, not {self.temperature}")
        if not 0 <= self.kd_skip_entropy < 1:
            raise ValueError(
                f"--kd-skip-entropy must be at least 0 and below 1, not {self.kd_skip_entropy}"
            )
        live_only = self.temperature != 1 or self.reverse_kl or self.kd_skip_entropy
        if self.teacher_cache and live_only:
            raise ValueError(
                "--temperature, --reverse-kl and --kd-skip-entropy need a live teacher, not "
                "--teacher-cache"
            )


class Objective(objective.Objective):
    """A frozen teacher beside the student, in the student's precision, or its stored part."""

    Settings = Settings
    FREE = frozenset({"teacher_path", "teacher_cache"})

    @classmethod
    def inputs(cls, settings: Settings, base: Path, corpus: Corpus) -> dict:
        """The teacher, or what is stored of it; InputError if it does not belong to the corpus."""
        if settings.teacher_cache:
            cache = TeacherCache(under(base, settings.teacher_cache), corpus)
            # Rows are stored in order: where the first and the last are, those between are too.
            if count := rows_read(settings, corpus):
                cache.require(np.array([0, count - 1]))
            return {"teacher_cache": (cache.folder, cache.manifest.identity)}
        folder = under(base, settings.teacher_path)
        identity = artefact.identity(folder, "model", GET_MODEL.replace("MODEL", "TEACHER"))
        require_belonging(corpus, folder)
        return {"teacher": (folder, identity)}

    def __init__(self, student: nn.Module, context: objective.Context) -> None:
        super().__init__(student, context)
        settings = context.settings
        base = base_folder(settings.base_path)
        self.share, self.vocab = settings.kd_ratio, head_weight(student).shape[0]
        self.teacher = self.cache = None
        if settings.teacher_cache:
            self.cache = TeacherCache(under(base, settings.teacher_cache), context.corpus)
            if context.processes.first:
                announce(self.cache, under(base, settings.teacher_path), context)
            return
        folder = under(base, settings.teacher_path)
        teacher = load_model(folder, settings.precision, settings.attention)
        self.teacher = teacher.eval().requires_grad_(False).to(context.processes.device)
        self.vocab = common_vocabulary(student, self.teacher, context)

    def columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What is stored of the teacher at these rows."""
        if self.cache is None:
            return {}
        names = ("teacher_counts", "teacher_ids", "teacher_probabilities")
        return dict(zip(names, self.cache.targets(rows), strict=True))

    def begin_step(self, step: int, batch: objective.Batch) -> objective.Batch:
        """Set the share of kd_loss in this step's loss."""
        settings = self.context.settings
        if settings.kd_schedule == "wsd":
            self.share = settings.kd_ratio * warmup_stable_decay(
                step, settings.warmup_steps, settings.total_steps
            )
        return batch

    def loss(self, micro: objective.Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        inputs, labels, counted = inputs_and_labels(
            micro["tokens"], micro["lengths"], self.context.eos_id
        )
        labels, weights = labels.flatten(), sequence_mean_weights(counted).flatten()
        if self.cache is None:
            rule = self.live(inputs, labels, counted.flatten())
        else:
            rule = self.stored(micro, labels, counted)
        hidden = hidden_states(self.student, inputs).flatten(0, 1)
        return head_loss(hidden, head_weight(self.student)[: self.vocab], weights, rule)

    def live(self, inputs: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor) -> Rule:
        """Against the live teacher's whole distribution."""
        settings = self.context.settings
        with torch.no_grad():
            hidden = hidden_states(self.teacher, inputs).flatten(0, 1)
        head = head_weight(self.teacher)[: self.vocab]
        share = torch.full(labels.shape, self.share, device=labels.device)
        if settings.kd_skip_entropy:
            at = counted.nonzero().squeeze(1)
            entropy = teacher_entropy(hidden[at], head, settings.temperature)
            lowest = entropy.argsort(stable=True)[: int(settings.kd_skip_entropy * len(at))]
            share[at[lowest]] = 0.0
        return live_rule(
            labels, share, hidden, head, settings.temperature, reverse=settings.reverse_kl
        )

    def stored(self, micro: objective.Batch, labels: torch.Tensor, counted: torch.Tensor) -> Rule:
        """Against what is stored of the teacher, which must have counted the same positions."""
        counts, ids, probabilities = (
            micro[f"teacher_{name}"] for name in ("counts", "ids", "probabilities")
        )
        if not torch.equal(counts, counted.sum(dim=1)):
            raise ArtefactError(
                "the stored teacher has counted other positions of these rows than training",
                where=self.cache.folder,
                fix="store it again for this corpus",
            )
        there = torch.arange(ids.shape[1], device=ids.device) < counts[:, None]
        at = counted.flatten().nonzero().squeeze(1)
        full_ids = ids.new_zeros(len(labels), ids.shape[2])
        full = probabilities.new_zeros(full_ids.shape)
        full_ids[at], full[at] = ids[there], probabilities[there]
        share = torch.full(labels.shape, self.share, device=labels.device)
        return stored_rule(labels, share, full_ids, full, remainder=self.cache.top_k)

    def teacher_flops(self, tokens: float, mean_length: float) -> float:
        """One forward pass of a live teacher."""
        return 0.0 if self.teacher is None else forward_flops(self.teacher, mean_length) * tokens


def announce(cache: TeacherCache, teacher_folder: Path, context: objective.Context) -> None:
    """Say what the cache keeps; where its teacher is there, compared with it on a few rows."""
    print(cache.summary(), flush=True)
    known = cache.manifest.input_fingerprint("model")
    try:
        found = artefact.identity(teacher_folder, "model", GET_MODEL)["fingerprint"]
    except ProgramError:
        found = None
    if found != known or not len(context.corpus):
        print(
            f"not compared with its teacher, which is not in {teacher_folder} (TEACHER_PATH)",
            flush=True,
        )
        return
    settings, device = context.settings, context.processes.device
    rows = np.linspace(0, rows_read(settings, context.corpus) - 1, COMPARED).astype(np.int64)
    words = compared(
        cache, teacher_folder, np.unique(rows), context.eos_id, settings.precision, device
    )
    print(f"compared with {teacher_folder} {words}", flush=True)


def rows_read(settings: TrainSettings, corpus: Corpus) -> int:
    """How many rows of the corpus, the first ones, training reads before it ends."""
    if settings.shuffle:
        return len(corpus)
    steps = min(settings.stop_step or settings.total_steps, settings.total_steps)
    return min(len(corpus), steps * settings.global_batch)


def common_vocabulary(student: nn.Module, teacher: nn.Module, context: objective.Context) -> int:
    """Logit rows that both distributions are taken over.

    Models of one tokenizer may be padded to different numbers of rows: then both are cut to the
    tokenizer's size. InputError if one of them is smaller than that.
    """
    sizes = [head_weight(model).shape[0] for model in (student, teacher)]
    if sizes[0] == sizes[1]:
        return sizes[0]
    folder = context.corpus.tokenizer_folder
    size = vocabulary_size(load_tokenizer(folder)) if folder else min(sizes)
    if size > min(sizes):
        raise InputError(
            "student and teacher have different numbers of ids, one fewer than the tokenizer",
            expected=f"at least {size}",
            found=f"student {sizes[0]}, teacher {sizes[1]}",
            fix="use models of the corpus's tokenizer (TEACHER_PATH, MODEL_CONFIG)",
        )
    if context.processes.first:
        cut = f"{sizes[0] - size} of the student's, {sizes[1] - size} of the teacher's"
        print(f"NOTE padded rows of logits are cut off: {cut}", flush=True)
    return size
