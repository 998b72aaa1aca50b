"""MiniLLM: reverse KL to a live teacher on the student's own continuations, beside the LM loss.

Every INNER_EPOCHS x ROLLOUTS / GLOBAL_BATCH steps a phase begins (Gu et al., arXiv 2306.08543):
student and teacher together continue prompts, and the phase's steps train on these rollouts. The
prompts are the beginnings of the rows of the phase's first ROLLOUTS samples; a row that is too
short is replaced by the next one of the corpus that is not. A step's loss is lm_loss on its rows,
as ever, plus pg_loss and single_step (pretrain/policy_loss.py) on GLOBAL_BATCH of the rollouts;
metrics.jsonl has these three, the share of clipped tokens, and the mean reward (log p - log q) and
importance weight of the rollouts.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, under
from data_utils.sample_order import rows_of
from pretrain import objective
from pretrain.belonging import require_belonging
from pretrain.distillation import live_rule
from pretrain.flops import forward_flops
from pretrain.log_probs import check_ids
from pretrain.losses import head_loss, inputs_and_labels, sequence_mean_weights
from pretrain.models import (
    GET_MODEL,
    check_positions,
    head_weight,
    hidden_states,
    load_model,
    read_config,
)
from pretrain.objectives.language_modelling import batch_loss
from pretrain.objectives.vanilla_kd import common_vocabulary
from pretrain.policy_loss import REWARD_CLIP, advantages, policy_loss
from pretrain.rollouts import continue_mixed, prompt_rows, response_states, score
from pretrain.settings import TrainSettings

QUIET = 30  # seconds of sampling without a line
# The official code's choices (microsoft/LMOps, minillm): the return counts the token's own reward
# again, discounted by GAMMA and whitened; half of the LM loss is distillation.
GAMMA, REWARD_SCALING, KD_RATIO = 0.95, 0.5, 0.5


@dataclass
class Settings(TrainSettings):
    """Train a pre-trained student on its own continuations of a corpus's rows, with a teacher."""

    teacher_path: str = flag("checkpoints/qwen/1.8B", "the teacher")
    prompt_length: int = flag(768, "tokens of a row that are continued")
    new_tokens: int = flag(256, "tokens that are sampled")
    rollouts: int = flag(0, "rollouts of a phase; 0: as many as a step has sequences")
    inner_epochs: int = flag(4, "times that a phase's rollouts are trained on")
    rollout_batch: int = flag(16, "rollouts per process that are sampled together")
    teacher_mix: float = flag(0.2, "the teacher's share in what tokens are sampled from")
    ppo_clip: float = flag(0.2, "how far the ratio to it counts from 1")
    minillm_original: bool = flag(
        False, "inclusive, discounted, whitened returns and half distillation, as the official code"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("prompt_length", "new_tokens", "inner_epochs", "rollout_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        for name in ("teacher_mix", "ppo_clip"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 0 and below 1")
        self.rollouts = self.rollouts or self.global_batch
        if self.rollouts < 1 or self.rollouts % self.global_batch:
            raise ValueError(
                f"--rollouts {self.rollouts} is not a multiple of --global-batch "
                f"{self.global_batch}"
            )


class Objective(objective.Objective):
    """A frozen teacher in the student's precision, and the phase's rollouts on the CPU."""

    Settings = Settings
    FREE = frozenset({"teacher_path", "rollout_batch"})

    @classmethod
    def inputs(cls, settings: Settings, base: Path, corpus: Corpus) -> dict:
        """The teacher; InputError if a model or the corpus cannot do what is asked of it."""
        if not settings.model_path:
            raise InputError(
                "MiniLLM cannot start from random weights: their own text says nothing",
                fix="pre-train a student first (scripts/pretrain) and name it (MODEL_PATH)",
            )
        folder = under(base, settings.teacher_path)
        identity = artefact.identity(folder, "model", GET_MODEL.replace("MODEL", "TEACHER"))
        require_belonging(corpus, folder)
        for model in (under(base, settings.model_path), folder):
            require_sampling(model / "config.json", settings.prompt_length + settings.new_tokens)
        prompt_rows(corpus, np.arange(min(len(corpus), 1)), settings.prompt_length)
        return {"teacher": (folder, identity)}

    def __init__(self, student: torch.nn.Module, context: objective.Context) -> None:
        super().__init__(student, context)
        settings = context.settings
        folder = under(base_folder(settings.base_path), settings.teacher_path)
        teacher = load_model(folder, settings.precision, settings.attention)
        self.teacher = teacher.eval().requires_grad_(False).to(context.processes.device)
        self.vocab = common_vocabulary(student, self.teacher, context)
        self.batches = settings.rollouts // settings.global_batch  # of a phase
        self.first, self.rollouts = -1, {}  # the phase's first sample, tensors [rollouts, ...]

    def begin_step(self, step: int, batch: objective.Batch) -> objective.Batch:
        """The batch with this rank's part of the step's rollouts, sampled anew in a new phase."""
        settings, plan = self.context.settings, self.context.plan
        phase, place = divmod(step - 1, settings.inner_epochs * self.batches)
        first = phase * settings.inner_epochs * settings.rollouts
        if (self.first, len(self.rollouts.get("tokens", ()))) != (first, settings.rollouts):
            self.first, self.rollouts = first, self.sample(first)
        at = place % self.batches * plan.global_batch
        own = {f"rollout_{n}": v[at : at + plan.global_batch] for n, v in self.rollouts.items()}
        own["rollout_advantage"] = self.advantages(own["rollout_reward"])
        rank = self.context.processes.rank
        return {**batch, **{name: plan.part(values, rank) for name, values in own.items()}}

    def advantages(self, reward: torch.Tensor) -> torch.Tensor:
        """Of a step's rollouts [global batch, new tokens]."""
        if self.context.settings.minillm_original:
            reward = (reward / REWARD_SCALING).clamp(-REWARD_CLIP, REWARD_CLIP)
            return advantages(reward, GAMMA, inclusive=True, whiten=True)
        return advantages(reward.clamp(-REWARD_CLIP, REWARD_CLIP))

    def sample(self, first: int) -> objective.Batch:
        """The rollouts of samples first, first + 1, ...: equal for any number of ranks.

        tokens [rollouts, prompt length + new tokens], and score()'s of the new tokens.
        """
        settings, processes = self.context.settings, self.context.processes
        each, parts, said = settings.rollout_batch * processes.world, [], time.monotonic()
        samples = np.arange(first, first + settings.rollouts)
        self.student.eval()
        for start in range(0, settings.rollouts, each):
            parts.append(self.sample_together(samples[start : start + each]))
            if processes.first and time.monotonic() - said > QUIET:
                said, done = time.monotonic(), start + len(parts[-1]["tokens"])
                print(f"{done} of {settings.rollouts} rollouts are sampled", flush=True)
        self.student.train()
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def sample_together(self, samples: np.ndarray) -> objective.Batch:
        """Each rank makes some of the rollouts; all get all of them, on the CPU."""
        processes, gathered = self.context.processes, {}
        found = self.sample_alone(samples[processes.rank :: processes.world])
        for name, values in found.items():
            whole = values.new_zeros(len(samples), *values.shape[1:])
            whole[processes.rank :: processes.world] = values
            with processes.together("the rollouts"):
                dist.all_reduce(whole)
            gathered[name] = whole.cpu()
        return gathered

    def sample_alone(self, samples: np.ndarray) -> objective.Batch:
        """The rollouts of these samples, on this process's device."""
        settings, corpus = self.context.settings, self.context.corpus
        device, models = self.context.processes.device, (self.student, self.teacher)
        rows = rows_of(samples, len(corpus), settings.seed if settings.shuffle else None)
        rows = prompt_rows(corpus, rows, settings.prompt_length)
        prompts = corpus.batch(rows, self.context.eos_id)[0][:, : settings.prompt_length]
        check_ids(prompts, self.vocab, corpus, rows)
        tokens = continue_mixed(
            models,
            self.vocab,
            torch.from_numpy(prompts).to(device),
            settings.new_tokens,
            torch.from_numpy(samples).to(device),
            settings.seed,
            settings.teacher_mix,
        )
        scores = score(models, self.vocab, tokens, settings.new_tokens, settings.teacher_mix)
        return {"tokens": tokens, **scores}

    def loss(self, micro: objective.Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        corpus_loss, figures = self.corpus_loss(micro)
        loss, own = self.policy_loss(micro)
        own |= {name: micro[f"rollout_{name}"].mean() for name in ("reward", "weight")}
        return corpus_loss + loss, figures | own

    def corpus_loss(self, micro: objective.Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The LM loss of the step's rows, as the official code does it mixed with forward KL."""
        tokens, lengths, eos_id = micro["tokens"], micro["lengths"], self.context.eos_id
        if not self.context.settings.minillm_original:
            lm_loss = batch_loss(self.student, tokens, lengths, eos_id)
            return lm_loss, {"lm_loss": lm_loss}
        inputs, labels, counted = inputs_and_labels(tokens, lengths, eos_id)
        hidden, head = hidden_states(self.student, inputs).flatten(0, 1), head_weight(self.student)
        with torch.no_grad():
            teacher_hidden = hidden_states(self.teacher, inputs).flatten(0, 1)
        rule = live_rule(
            labels.flatten(),
            torch.full((labels.numel(),), KD_RATIO, device=labels.device),
            teacher_hidden,
            head_weight(self.teacher)[: self.vocab],
        )
        weights = sequence_mean_weights(counted).flatten()
        loss, figures = head_loss(hidden, head[: self.vocab], weights, rule)
        return loss, {name: figures[name] for name in ("lm_loss", "kd_loss")}

    def policy_loss(self, micro: objective.Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The mean over the new tokens: all micro-batches have as many."""
        tokens, log_b = micro["rollout_tokens"], micro["rollout_log_b"].flatten()
        new_tokens = micro["rollout_log_b"].shape[1]
        with torch.no_grad():
            teacher_hidden = response_states(self.teacher, tokens, new_tokens)
        return policy_loss(
            response_states(self.student, tokens, new_tokens),
            head_weight(self.student)[: self.vocab],
            torch.full_like(log_b, 1 / len(log_b)),
            {
                "labels": tokens[:, -new_tokens:].flatten(),
                "log_b": log_b,
                "advantage": micro["rollout_advantage"].flatten(),
            },
            teacher_hidden,
            head_weight(self.teacher)[: self.vocab],
            self.context.settings.ppo_clip,
        )

    def student_flops(self, tokens: float, mean_length: float) -> float:
        """Its rows, and the rollouts: trained on, and in each phase sampled and scored."""
        rollouts = self.rollout_flops(self.student, tokens / mean_length)
        found = super().student_flops(tokens, mean_length) + 3 * rollouts
        return found + 2 * rollouts / self.context.settings.inner_epochs

    def teacher_flops(self, tokens: float, mean_length: float) -> float:
        """One pass over the rollouts; in each phase they are sampled and scored."""
        settings = self.context.settings
        rollouts = self.rollout_flops(self.teacher, tokens / mean_length)
        found = rollouts + 2 * rollouts / settings.inner_epochs
        if settings.minillm_original:
            found += forward_flops(self.teacher, mean_length) * tokens
        return found

    def rollout_flops(self, model: torch.nn.Module, rows: float) -> float:
        """Of a forward pass over so many rollouts."""
        length = self.context.settings.prompt_length + self.context.settings.new_tokens
        return forward_flops(model, length) * length * rows

    def state(self) -> objective.Batch:
        """The phase's rollouts."""
        return {"first": torch.tensor(self.first), **self.rollouts} if self.rollouts else {}

    def load_state(self, state: objective.Batch) -> None:
        self.first = int(state.pop("first"))
        self.rollouts = state


def require_sampling(config_file: Path, length: int) -> None:
    """InputError for a model that cannot sample rollouts of `length` tokens, prompt included."""
    check_positions(config_file, length)
    if "num_attention_heads" not in read_config(config_file):
        raise InputError(
            "MiniLLM samples with a key-value cache, which this model does not have",
            where=config_file,
            fix="use models with attention (MODEL_PATH, TEACHER_PATH)",
        )
