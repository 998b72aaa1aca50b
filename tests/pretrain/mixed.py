"""An objective with a second, frozen model: language modelling and the distance to its states."""

from dataclasses import dataclass

import torch

from data_utils import artefact
from data_utils.flags import base_folder, flag, under
from pretrain import objective
from pretrain.belonging import require_belonging
from pretrain.flops import forward_flops
from pretrain.models import GET_MODEL, hidden_states, load_model
from pretrain.objectives.language_modelling import batch_loss
from pretrain.settings import TrainSettings


@dataclass
class Settings(TrainSettings):
    """Pre-train with a second model."""

    second_path: str = flag("second", "the second model")
    mix: float = flag(0.5, "weight of the distance")


class Objective(objective.Objective):
    Settings, FREE = Settings, frozenset({"second_path"})

    @classmethod
    def inputs(cls, settings, base, corpus):
        folder = under(base, settings.second_path)
        require_belonging(corpus, folder)
        return {"second": (folder, artefact.identity(folder, "model", GET_MODEL))}

    def __init__(self, student, context):
        super().__init__(student, context)
        s = context.settings
        folder = under(base_folder(s.base_path), s.second_path)
        second = load_model(folder, s.precision, s.attention).requires_grad_(False)
        self.second = second.to(context.processes.device)

    def columns(self, rows):
        return {"row": rows}

    def loss(self, micro):
        tokens, mix = micro["tokens"], self.context.settings.mix
        lm_loss = batch_loss(self.student, tokens, micro["lengths"], self.context.eos_id)
        with torch.no_grad():
            states = hidden_states(self.second, tokens[:, :-1])
        distance = (hidden_states(self.student, tokens[:, :-1]) - states).square().mean()
        figures = {"lm_loss": lm_loss, "distance": distance, "row": micro["row"].float().mean()}
        return (1 - mix) * lm_loss + mix * distance, figures

    def teacher_flops(self, tokens, mean_length):
        return forward_flops(self.second, mean_length) * tokens
