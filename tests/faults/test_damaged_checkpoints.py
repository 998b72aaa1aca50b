"""A damaged checkpoint is named and passed over; removing old ones never costs a whole one.

.venv/bin/python -m pytest tests/faults/test_damaged_checkpoints.py
"""

import multiprocessing
import shutil
import signal
from pathlib import Path

import pytest

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.errors import ArtefactError
from pretrain import checkpoints, train
from tests import make, programs
from tests.faults import hooks
from tests.pretrain.runs import LONGEST, call, damage, flags, same_run

FORK = multiprocessing.get_context("fork")
OPTIMIZER = "deepspeed/state/zero_pp_rank_0_mp_rank_00_optim_states.pt"
WEIGHTS = "deepspeed/state/mp_rank_00_model_states.pt"


@pytest.fixture(scope="module")
def stopped(base) -> Path:
    """The folder of a run that has ended early, with the checkpoints of steps 4 and 8."""
    assert call(base, flags(SAVE="stopped", STOP_STEP=8)).code == 0
    return base / "stopped"


@pytest.fixture
def copy(stopped, request) -> Path:
    """A copy of that folder, in the same BASE_PATH."""
    folder = stopped.with_name(f"copy for {request.node.name}".replace("/", " "))
    shutil.copytree(stopped, folder)
    return folder


def without_states(folder: Path) -> None:
    """As a kill leaves it between the two halves of drop_state."""
    shutil.copytree(folder / "deepspeed", folder.parent / "states")
    checkpoints.drop_state(folder)
    (folder.parent / "states").rename(folder / "deepspeed")


DAMAGES = {
    "weights for people, a bit": lambda f: damage(f / "model.safetensors"),
    "weights for DeepSpeed, a bit": lambda f: damage(f / WEIGHTS),
    "optimiser's state, a bit": lambda f: damage(f / OPTIMIZER),
    "trainer's state, a bit": lambda f: damage(f / "trainer_state.json"),
    "manifest, a bit": lambda f: damage(f / "manifest.json"),
    "optimiser's state, cut short": lambda f: damage(f / OPTIMIZER, 1000),
    "weights, cut to nothing": lambda f: damage(f / "model.safetensors", 0),
    "a process's file missing": lambda f: (f / OPTIMIZER).unlink(),
    "trainer's state missing": lambda f: (f / "trainer_state.json").unlink(),
    "manifest missing": lambda f: (f / "manifest.json").unlink(),
    "states half dropped": without_states,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_the_newest_is_damaged_and_the_one_before_is_used(copy, name, capsys):
    DAMAGES[name](copy / "step_000008")
    assert checkpoints.find_checkpoint(copy) == copy / "step_000004"
    assert capsys.readouterr().out.count("step_000008 is damaged and passed over: ERROR ") == 1
    shutil.rmtree(copy / "step_000004")
    with pytest.raises(ArtefactError, match="no checkpoint is intact"):
        checkpoints.find_checkpoint(copy)


def test_a_model_without_states_is_no_reason_to_begin_anew(copy):
    """All that can be resumed from is gone, what KEEP_EVERY has kept is there."""
    shutil.rmtree(copy / "step_000008")
    checkpoints.drop_state(copy / "step_000004")
    run = call(copy.parent, flags(SAVE=copy.name))
    assert run.code == 3 and "no checkpoint is intact" in run.errors
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize("name", ["weights for people, a bit", "newest missing"])
def test_going_on_from_the_one_before_ends_the_same(copy, trained_by_one, name):
    DAMAGES.get(name, shutil.rmtree)(copy / "step_000008")
    run = call(copy.parent, flags(SAVE=copy.name))
    assert run.code == 0 and "resuming after step 4" in run.output, run.errors
    same_run(copy, trained_by_one)


def test_other_settings_and_inputs_are_refused_and_nothing_is_lost(base, copy, trained_by_one):
    tokenizer = base / "tokenizer"
    rows = make.text_rows(tokenizer, 42, LONGEST, seed=5)
    make.save_corpus(base / "other", rows, tokenizer, max_length=LONGEST)
    changes = [
        ({"LR": 3e-3}, "begun with another lr", "expected lr 0.01, found lr 0.003"),
        ({"GLOBAL_BATCH": 8}, "begun with another global_batch", "found global_batch 8"),
        ({"DATA_DIR": "other"}, "made from another corpus", str(copy)),
        ({"SEED": 11}, "begun with another seed", "found seed 11"),
    ]
    before = state_of(copy)
    for change, what, figures in changes:
        run = call(base, flags(SAVE=copy.name, **change))
        assert run.code == 2 and run.errors.count("ERROR") == 1 and " Fix: " in run.errors
        assert what in run.errors and figures in run.errors, run.errors
        assert "Traceback" not in run.errors and state_of(copy) == before
    assert call(base, flags(SAVE=copy.name)).code == 0
    same_run(copy, trained_by_one)


def state_of(folder: Path) -> dict:
    """Content of every file but the lock."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != artefact.LOCK)
    return {path: path.read_bytes() for path in files}


def fake_checkpoint(save: Path, step: int) -> Path:
    """A small folder that passes for a checkpoint."""
    folder = checkpoints.step_folder(save, step)
    (folder / "deepspeed/state").mkdir(parents=True)
    for name in ("model.safetensors", WEIGHTS, OPTIMIZER):
        (folder / name).write_text(f"{name} of {step}")
    names = ["model.safetensors", WEIGHTS, OPTIMIZER]
    Output(folder, "model", "tests", {}, {}).finish(names, {"step": step})
    return folder


def whole(folder: Path) -> str:
    """Check a step's folder whole; whether it is a checkpoint or a model only."""
    manifest = artefact.require(folder, "model", "", contents=True)
    return "checkpoint" if len(manifest.files) == 3 else "model"


@pytest.mark.parametrize("phase", [name for name in hooks.PHASES if name.startswith("prune")])
def test_pruning_killed_at_any_moment_leaves_whole_ones(tmp_path, phase):
    """KEEP_LAST=1, KEEP_EVERY=4: the checkpoint of step 2 goes, of step 4 the model stays."""
    killed = 0
    for moment in range(20):
        save = tmp_path / str(moment)
        for step in (2, 4, 6):
            fake_checkpoint(save, step)

        def prune(moment=moment, save=save):
            hooks.strike_at(phase, moment, programs.kill)
            train.prune(save, 6, 1, 4)

        process = FORK.Process(target=prune)
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        found = {path.name: whole(path) for path in save.glob("step_*[0-9]")}
        assert found["step_000006"] == "checkpoint"
        train.prune(save, 6, 1, 4)
        found = {path.name: whole(path) for path in save.iterdir()}
        assert found == {"step_000004": "model", "step_000006": "checkpoint"}
        assert not (save / "step_000004/deepspeed").exists()
        if process.exitcode == 0:
            break
        killed += 1
    assert 2 <= killed < 20


def test_a_damaged_newer_checkpoint_does_not_push_out_a_whole_one(tmp_path):
    """Resumed from step 4 past a damaged 8, stopped at 5: 5 is the one to keep, not 8."""
    for step in (4, 5, 8):
        fake_checkpoint(tmp_path, step)
    damage(checkpoints.step_folder(tmp_path, 8) / WEIGHTS)
    checkpoints.prune(tmp_path, 5, 1, 0)
    assert checkpoints.find_checkpoint(tmp_path) == tmp_path / "step_000005"
    assert not (tmp_path / "step_000004").exists()
