"""An objective that samples from the student and takes several updates on the same samples."""

import torch
import torch.distributed as dist

from pretrain import objective
from pretrain.losses import inputs_and_labels, weighted_cross_entropy
from pretrain.models import head_weight, hidden_states
from pretrain.objectives.language_modelling import batch_loss

UPDATES, PROMPT, LENGTH = 3, 2, 9


class Objective(objective.Objective):
    phase, samples = 0, None  # samples: [global batch, LENGTH]

    def begin_step(self, step, batch):
        phase = (step - 1) // UPDATES + 1
        if phase != self.phase:
            self.phase, self.samples = phase, self.sample(step, batch["tokens"][..., :PROMPT])
        return {**batch, "samples": self.mine(self.samples)}

    def mine(self, values):
        return self.context.plan.part(values, self.context.processes.rank)

    def sample(self, step, prompts):
        """Each rank samples from its own rows' prompts; all get all samples."""
        context, tokens = self.context, prompts.flatten(0, 1)
        places = self.mine(torch.arange(context.plan.global_batch)).flatten()
        chance = [objective.generator(context.settings.seed, step, int(place)) for place in places]
        for _ in range(LENGTH - PROMPT):
            chances = self.student(tokens.to(context.processes.device)).logits[:, -1].softmax(-1)
            drawn = [
                torch.multinomial(p, 1, generator=g)
                for p, g in zip(chances.float().cpu(), chance, strict=True)
            ]
            tokens = torch.cat([tokens, torch.stack(drawn)], dim=1)
        samples = torch.zeros(context.plan.global_batch, LENGTH, dtype=torch.int64)
        samples[places] = tokens
        with context.processes.together("the samples"):
            dist.all_reduce(samples)
        return samples

    def loss(self, micro):
        """Language modelling, and the samples' mean over the tokens of the whole step."""
        eos_id, parts = self.context.eos_id, self.context.plan.parts
        total = int(inputs_and_labels(self.samples, torch.tensor([LENGTH]), eos_id)[2].sum())
        lengths = torch.full((len(micro["samples"]),), LENGTH, device=micro["samples"].device)
        inputs, labels, counted = inputs_and_labels(micro["samples"], lengths, eos_id)
        weights = counted.flatten() * (parts / max(total, 1))
        hidden = hidden_states(self.student, inputs).flatten(0, 1)
        sample_loss = weighted_cross_entropy(
            hidden, head_weight(self.student), labels.flatten(), weights
        )
        lm_loss = batch_loss(self.student, micro["tokens"], micro["lengths"], eos_id)
        return lm_loss + sample_loss, {"sample_loss": sample_loss}

    def state(self):
        return {"phase": torch.tensor(self.phase), "samples": self.samples}

    def load_state(self, state):
        self.phase, self.samples = int(state["phase"]), state["samples"]
