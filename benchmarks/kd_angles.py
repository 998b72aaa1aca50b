"""How near a stored teacher's gradient is to the live one's: the angle between the two.

    .venv/bin/python benchmarks/kd_angles.py --corpus PATH --teacher PATH --student PATH \
        [--rows 16] [--draws 50]

Gradients of all of the student's parameters on the same rows, by the distance to the teacher alone
(KD_RATIO=1): against the whole distribution, against 50 systematic and 50 independent draws, and
against the 50 most probable ids as they are, and with the remainder as one event. Also the ratio of
the norms. Published for 12 distinct ids: 4 degrees drawn, 58 of the top 12, 48 of the top 50
(Anshumann et al., arXiv 2503.16870).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import argparse
import math

import numpy as np
import torch

from data_utils.corpus import Corpus
from pretrain.distillation import live_rule, stored_rule
from pretrain.draws import draw, most_probable
from pretrain.losses import Rule, head_loss, inputs_and_labels, sequence_mean_weights
from pretrain.models import head_weight, hidden_states, load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for name in ("corpus", "teacher", "student"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--draws", type=int, default=50)
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    tokens, lengths = corpus.batch(np.arange(options.rows), corpus.eos_id)
    inputs, labels, counted = inputs_and_labels(
        torch.from_numpy(tokens), torch.from_numpy(lengths), corpus.eos_id
    )
    teacher, student = (load_model(f, "fp32", "sdpa") for f in (options.teacher, options.student))
    with torch.no_grad():
        hidden = hidden_states(teacher, inputs).flatten(0, 1)
    head, labels = head_weight(teacher).detach(), labels.flatten()
    share, place = torch.ones(len(labels)), torch.arange(len(labels))
    words = (hidden, head, place, place, 10, options.draws)
    equal = torch.full((len(labels), options.draws), 1 / options.draws)
    top = most_probable(hidden, head, options.draws)

    def gradient(rule: Rule) -> torch.Tensor:
        weights = sequence_mean_weights(counted).flatten()
        states = hidden_states(student, inputs).flatten(0, 1)
        loss, _ = head_loss(states, head_weight(student), weights, rule)
        parts = torch.autograd.grad(loss, list(student.parameters()))
        return torch.cat([part.flatten() for part in parts]).double()

    live = gradient(live_rule(labels, share, hidden, head))
    draws = options.draws
    for name, rule in (
        (f"{draws} systematic draws", stored_rule(labels, share, draw(*words), equal)),
        (
            f"{draws} independent draws",
            stored_rule(labels, share, draw(*words, systematic=False), equal),
        ),
        (f"top {draws}, raw", stored_rule(labels, share, *top)),
        (f"top {draws} and remainder", stored_rule(labels, share, *top, remainder=True)),
    ):
        found = gradient(rule)
        cosine = float(found @ live / (found.norm() * live.norm()))
        ratio = float(found.norm() / live.norm())
        print(f"{name:<24} {math.degrees(math.acos(min(1.0, cosine))):6.2f} degrees, {ratio:.3f}")
    print(f"top {draws} keep {float(top[1].sum(1)[counted.flatten()].mean()):.3f} of the mass")


if __name__ == "__main__":
    main()
