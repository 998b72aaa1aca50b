"""The seam for objectives, by two that exist only here: tests/pretrain/mixed.py and sampled.py.

.venv/bin/python -m pytest tests/pretrain/test_objectives.py
"""

import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cluster.processes import Processes
from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from pretrain import train
from pretrain.batches import batches
from pretrain.checkpoints import OBJECTIVE, steps_present
from pretrain.flops import forward_flops
from pretrain.objective import Context, generator, load, names, parse_settings
from pretrain.settings import TrainSettings
from pretrain.steps import accumulate
from tests import make, programs
from tests.faults import hooks
from tests.pretrain.runs import BATCH, EOS, ROWS, STEPS, VOCAB, column, flags, make_base, same_run

MIXED, SAMPLED = "tests.pretrain.mixed", "tests.pretrain.sampled"
FIGURE = {MIXED: "distance", SAMPLED: "sample_loss"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    base = make_base(tmp_path_factory.mktemp("base path"))
    for seed, name in enumerate(("second", "third")):
        make.save_model(base / name, make.qwen_config(VOCAB), seed, base / "tokenizer")
    return base


def call(base: Path, save: str, objective: str, processes: int = 1, **more) -> programs.Program:
    words = ["pretrain.train"]
    if processes > 1:
        words = ["cluster.launch", "--nproc", processes, "pretrain/train.py"]
    return programs.call(base, *words, base, *flags(SAVE=save, OBJECTIVE=objective, **more))


@pytest.fixture(scope="module")
def runs(base) -> dict[str, Path]:
    """Undisturbed runs of both objectives, with one process."""
    for name in (MIXED, SAMPLED):
        run = call(base, name, name)
        assert run.code == 0, run.errors
    return {name: base / name for name in (MIXED, SAMPLED)}


@pytest.mark.parametrize("name", [MIXED, SAMPLED])
def test_killed_and_resumed_equals_undisturbed(base, runs, name):
    """Killed in step 6, the third update on the same samples; resumed after step 4, the first."""
    save = f"killed {name}"
    words = flags(SAVE=save, OBJECTIVE=name)
    run = hooks.start(base, words, "step: the update", 10).wait()
    assert run.code == -signal.SIGKILL and steps_present(base / save) == [4], run.errors
    run = hooks.start(base, words).wait()
    assert run.code == 0 and "after step 4" in run.output, run.errors
    same_run(base / save, runs[name])
    assert column(base / save, FIGURE[name]) == column(runs[name], FIGURE[name])


@pytest.mark.parametrize("name", [MIXED, SAMPLED])
def test_two_processes_equal_one(base, runs, name):
    """Also if one continues alone, with samples that two have taken."""
    save = f"two {name}"
    for processes, changes in ((2, {"STOP_STEP": 5}), (1, {"MICRO_BATCH": 1})):
        run = call(base, save, name, processes, **changes)
        assert run.code == 0, run.errors
    for figure in ("loss", "grad_norm", FIGURE[name]):
        expected = pytest.approx(column(runs[name], figure), rel=1e-5)
        assert column(base / save, figure) == expected


def test_figures_are_means_over_the_step_and_columns_those_of_its_rows(runs):
    lm_loss, distance = (np.array(column(runs[MIXED], n)) for n in ("lm_loss", "distance"))
    assert column(runs[MIXED], "loss") == pytest.approx((lm_loss + distance) / 2)
    rows = np.arange(STEPS * BATCH) % ROWS
    assert column(runs[MIXED], "row") == rows.reshape(STEPS, BATCH).mean(axis=1).tolist()


def test_what_an_objective_holds_is_neither_trained_nor_saved(base, runs):
    weights = load_file(runs[MIXED] / "model.safetensors")
    assert weights.keys() == load_file(base / "second/model.safetensors").keys()
    assert not list(runs[MIXED].glob(f"*/{OBJECTIVE}"))  # it has no state
    states = sorted(path.stat().st_size for path in runs[MIXED].glob("*12/deepspeed/*/*"))
    plain = sorted(path.stat().st_size for path in runs[SAMPLED].glob("*12/deepspeed/*/*"))
    assert states == pytest.approx(plain, rel=0.01)


def test_a_state_is_a_part_of_the_checkpoint_alone(runs):
    state = load_file(runs[SAMPLED] / "step_000012" / OBJECTIVE)
    assert int(state["phase"]) == 4 and state["samples"].shape == (BATCH, 9)
    files = artefact.read_manifest(runs[SAMPLED] / "step_000012").files
    assert OBJECTIVE in {entry["name"] for entry in files}
    assert not list(runs[SAMPLED].glob("*objective*"))


def test_settings_and_inputs_are_recorded_and_no_run_continues_with_others(base, runs):
    manifest = artefact.read_manifest(runs[MIXED])
    content = manifest.content
    assert (content["objective"], content["mix"]) == (MIXED, 0.5) and "second_path" not in content
    known = artefact.identity(base / "second", "model", "")
    assert manifest.inputs["second"]["fingerprint"] == known["fingerprint"]
    for changes, name in (({"SECOND_PATH": "third"}, "second"), ({"MIX": 0.25}, "mix 0.25")):
        programs.one_message(call(base, MIXED, MIXED, **changes), 2, name)
    programs.one_message(call(base, MIXED, SAMPLED), 2, "objective", MIXED, SAMPLED)


def test_flags_of_another_objective_are_refused_and_help_shows_them(base, capsys):
    for name, code in ((MIXED, 0), (SAMPLED, 2), ("language_modelling", 2)):
        words = [str(w) for w in (base, *flags(SAVE="none", OBJECTIVE=name, MIX=0.3))]
        if code == 0:
            assert parse_settings(words).mix == 0.3
            train.check(words, 2)
            continue
        with pytest.raises(InputError, match="--mix"):
            train.check(words, 2)
    with pytest.raises(SystemExit):
        parse_settings(["--objective", MIXED, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--global-batch" in shown and "weight of the distance (default: 0.5)" in shown
    assert f"Only with --objective {MIXED}: --second-path" in shown


@pytest.mark.parametrize("name", ["nothing", "tests.nowhere.mixed", "tests.make", "", "os.path.x"])
def test_one_that_is_not_there_is_refused(name):
    assert names() == ["language_modelling", "minillm", "score_regression", "vanilla_kd"]
    with pytest.raises(InputError, match="language_modelling"):
        load(name)


def test_columns_are_read_ahead_in_the_order_of_the_rows(base):
    """Step 11 takes rows 40, 41, 0 and 1; the second of two ranks has two micro-batches of one."""
    settings, threads = TrainSettings(global_batch=4, micro_batch=1), set()

    def columns(rows: np.ndarray) -> dict[str, np.ndarray]:
        threads.add(threading.current_thread())
        return {"row": rows, "pair": np.stack([rows, -rows], axis=1)}

    context = Context(
        settings, Processes(1, 2, CPU), settings.plan(2), Corpus(base / "corpus"), EOS
    )
    (batch,) = batches(context, columns, VOCAB, 10, 11)
    assert batch["row"].tolist() == [[41], [1]] and batch["pair"].tolist() == [
        [[41, -41]],
        [[1, -1]],
    ]
    assert batch["lengths"].flatten().tolist() == context.corpus.lengths(np.array([41, 1])).tolist()
    assert batch["tokens"].shape[:2] == (2, 1) and threading.main_thread() not in threads


def test_a_figures_name_that_the_metrics_have_is_refused():
    settings = TrainSettings(global_batch=1, micro_batch=1)
    engine = SimpleNamespace(micro_step=lambda micro: (torch.ones(()), {"lr": torch.ones(())}))
    run = SimpleNamespace(
        settings=settings, plan=settings.plan(1), processes=Processes(0, 1, CPU), engine=engine
    )
    with pytest.raises(InputError, match=r"metrics\.jsonl.*: lr"):
        accumulate(run, {}, "")


def test_random_numbers_follow_from_seed_step_and_sample():
    drawn = [torch.rand(1, generator=generator(*k)) for k in ((1, 2, 3), (1, 2, 3), (1, 3, 2))]
    assert drawn[0] == drawn[1] != drawn[2]


def test_flops_are_those_of_all_models(base):
    settings = parse_settings([str(base), "--objective", MIXED, "--precision", "fp32"])
    student = train.load_model(base / "third", "fp32", "sdpa")
    context = Context(settings, Processes(0, 1, CPU), None, None, EOS)
    forward = forward_flops(student, 20) * 100
    for name, teacher in (("language_modelling", 0), (MIXED, forward)):
        objective = load(name)(student, context)
        assert objective.student_flops(100, 20) == 3 * forward
        assert objective.teacher_flops(100, 20) == teacher
