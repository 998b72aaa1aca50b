"""Another loss is one file of pretrain/objectives: it is found, trained on and recorded."""

from pathlib import Path

import pytest

from data_utils import artefact
from data_utils.program import CODE_ROOT
from pretrain import objectives
from tests import make, programs
from tests.pretrain.runs import LAUNCHER, VARIABLES, column, flags, make_base

DOUBLED = '''
"""Twice the language-modelling loss."""

import torch

from pretrain.objectives import language_modelling


class Objective(language_modelling.Objective):
    def forward(self, tokens, lengths):
        loss, _ = super().forward(tokens, lengths)
        return 2 * loss, {"half_loss": loss, "at_once": torch.tensor(float(len(tokens)))}
'''
HOOK = """# Where Python starts: one more folder of objectives, as if the file lay in the first.
import os, sys
sys.path.insert(0, os.environ["CODE"])
from pretrain import objectives
objectives.__path__.append(os.path.dirname(__file__))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    base = make_base(tmp_path_factory.mktemp("base path"))
    hook = base / "hook"
    hook.mkdir()
    (hook / "doubled.py").write_text(DOUBLED)
    (hook / "sitecustomize.py").write_text(HOOK)
    settings = {**VARIABLES, "TOTAL_STEPS": 4}
    place = {"SAVE": "doubled", "PYTHONPATH": hook, "CODE": CODE_ROOT}
    make.run(LAUNCHER, base, "--objective", "doubled", **settings, **place)
    run = programs.call(base, "pretrain.train", base, *flags(SAVE="plain", TOTAL_STEPS=4))
    assert run.code == 0, run.errors
    return base


def test_the_loss_and_its_figures_are_means_over_the_step(base):
    doubled, plain = base / "doubled", base / "plain"
    assert column(doubled, "loss") == [2 * half for half in column(doubled, "half_loss")]
    assert column(doubled, "at_once") == [2.0] * 4  # of micro-batches of 2
    assert column(doubled, "half_loss")[0] == column(plain, "loss")[0]
    assert column(doubled, "grad_norm")[0] == pytest.approx(2 * column(plain, "grad_norm")[0])


def test_it_is_recorded_and_no_run_goes_on_with_another(base):
    content = artefact.read_manifest(base / "doubled").content
    assert content["objective"] == "doubled"
    run = programs.call(base, "pretrain.train", base, *flags(SAVE="doubled", TOTAL_STEPS=4))
    programs.one_message(run, 2, "another objective", "doubled", "language_modelling")


def test_one_that_is_not_there_is_refused(base):
    assert objectives.names() == ["language_modelling"]
    run = programs.call(base, "pretrain.train", base, *flags(SAVE="none", OBJECTIVE="doubled"))
    programs.one_message(run, 2, "invalid choice: 'doubled'", "language_modelling")
