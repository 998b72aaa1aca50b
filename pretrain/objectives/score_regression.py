"""Score regression: a model learns to predict r of a row, for miniplm/proxy.py.

The proxy of MiniPLM (arXiv 2410.17215). loss = the mean over the rows of (predicted - r)^2 in units
of the variance of r over DATA_DIR; rows without a defined r add 0 and stay in the denominator.
metrics.jsonl also has absolute_error, the mean |predicted - r| in nats per token. The output head
is not used: the trunk and a new head (pretrain/score_head.py) are trained.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data_utils.corpus import Corpus
from data_utils.differences import Labels
from data_utils.flags import base_folder, flag, under
from pretrain import objective
from pretrain.flops import trunk_flops
from pretrain.losses import inputs_and_labels
from pretrain.models import hidden_states
from pretrain.score_head import add_score_head, position_scores, row_means
from pretrain.settings import TrainSettings


@dataclass
class Settings(TrainSettings):
    """Train a proxy, which predicts the difference scores of rows."""

    labels: str = flag(
        "results/scores/pile/qwen-1025/diff-qwen_1.8B-qwen_104M",
        "the difference scores of rows that include all of --data-dir",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.valid_data:
            raise ValueError(
                "--valid-data measures language modelling, which a proxy does not learn; leave it "
                "empty: miniplm/proxy.py compares predictions with labels"
            )


class Objective(objective.Objective):
    """The mean squared error of r, with a head of its own."""

    Settings = Settings
    FREE = frozenset({"labels"})

    @classmethod
    def inputs(cls, settings: Settings, base: Path, corpus: Corpus) -> dict:
        """The labels; InputError if they are not those of the corpus's rows."""
        labels = Labels(under(base, settings.labels), corpus)
        return {"labels": (labels.folder, labels.manifest.identity)}

    def __init__(self, student: nn.Module, context: objective.Context) -> None:
        super().__init__(student, context)
        settings = context.settings
        folder = under(base_folder(settings.base_path), settings.labels)
        self.labels = Labels(folder, context.corpus)
        self.head = add_score_head(student, self.labels.mean, self.labels.std)

    def columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The standardised label of each row."""
        return {"label": self.labels.standardised(rows)}

    def loss(self, micro: objective.Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        inputs, _, counted = inputs_and_labels(
            micro["tokens"], micro["lengths"], self.context.eos_id
        )
        scores = position_scores(self.head, hidden_states(self.student, inputs))
        label = micro["label"]
        error = torch.where(label.isnan(), 0.0, row_means(scores, counted) - label.nan_to_num())
        return error.square().mean(), {"absolute_error": self.labels.std * error.abs().mean()}

    def student_flops(self, tokens: float, mean_length: float) -> float:
        """Without the output head, whose product is not computed."""
        return 3 * trunk_flops(self.student, mean_length) * tokens
