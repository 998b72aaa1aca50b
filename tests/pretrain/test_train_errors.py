"""What goes wrong in pre-training ends with one message and its own exit code.

What is found before any process starts is tested in this process; the rest with one and with two.
"""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_utils import artefact
from data_utils.artefact_writer import lock
from data_utils.errors import ProgramError
from pretrain.metrics import read_metrics
from pretrain.train import check
from tests import make, programs
from tests.pretrain.runs import LAUNCHER, RARE, RARE_RUN, VOCAB, call, column, make_rare_base
from tests.programs import one_message


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    base = make_rare_base(tmp_path_factory.mktemp("base path"))
    (base / "small.json").write_text(json.dumps(make.qwen_config(RARE)))
    unfinished = base / "unfinished"
    unfinished.mkdir()
    (unfinished / artefact.SETTINGS).write_text("{}")
    config = {**make.qwen_config(VOCAB), "tie_word_embeddings": False}
    poisoned = make.save_model(base / "poisoned", config, 0, base / "tokenizer")
    weights = load_file(poisoned / "model.safetensors")
    weights["model.embed_tokens.weight"][RARE] = float("nan")
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    return base


def train(base: Path, processes: int, **changes: object) -> programs.Program:
    """Run with these settings changed."""
    return call(base, programs.flags({**RARE_RUN, **changes}), processes)


FP16 = pytest.param(
    {"precision": "fp16"},
    4,
    ["fp16", "GPU"],
    id="fp16 on a CPU",
    marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
)
MISTAKES = [
    pytest.param({"data_dir": "nowhere"}, 2, ["no corpus", "nowhere"], id="missing corpus"),
    pytest.param({"place": "/no/such/place"}, 2, ["BASE_PATH"], id="wrong BASE_PATH"),
    pytest.param({"learning_rate": 1}, 2, ["--learning-rate"], id="unknown flag"),
    pytest.param({"lr": "fast"}, 2, ["--lr", "fast"], id="no number"),
    pytest.param({"warmup_steps": 9}, 2, ["--warmup-steps"], id="impossible value"),
    pytest.param({"skip_steps": "3-1"}, 2, ["--skip-steps", "3-1"], id="impossible steps"),
    pytest.param({"global_batch": 5}, 2, ["GLOBAL_BATCH=5", "MICRO_BATCH=2"], id="batch"),
    pytest.param({"data_dir": "unfinished"}, 3, ["unfinished"], id="unfinished corpus"),
    pytest.param({"model_config": "no.json"}, 2, ["no.json"], id="missing configuration"),
    pytest.param({"model_path": "corpus"}, 2, ["corpus"], id="a corpus as the model"),
    FP16,
]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("changes, code, parts", MISTAKES)
def test_mistakes_are_found_before_anything_is_written(base, changes, code, parts, world):
    place = changes.get("place", base)
    settings = {name: value for name, value in changes.items() if name != "place"}
    words = programs.flags({**RARE_RUN, **settings})
    with pytest.raises(ProgramError, match=r"^ERROR .*\. Fix: ") as caught:
        check([str(word) for word in (place, *words)], world)
    assert caught.value.code == code and all(part in str(caught.value) for part in parts)
    assert not (base / "run").exists()


def test_global_batch_counts_all_processes(base):
    one_message(train(base, 3, global_batch=8), 2, "GLOBAL_BATCH=8", "MICRO_BATCH=2 x 3")


def test_mistakes_through_the_launcher(base):
    """The same as a user sees it, from the command line."""
    for processes in (1, 2):
        run = make.run(LAUNCHER, base, "--nonsense", 1, check=False, NPROC=processes)
        assert run.returncode == 2 and run.stderr.count("ERROR") == 1
        assert "--nonsense" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_writer_is_told_who_the_first_is(base, processes):
    save = f"locked by {processes}"
    with lock(base / save):
        run = train(base, processes, save=save)
    one_message(run, 2, f"process {os.getpid()}", socket.gethostname(), save)
    assert {path.name for path in (base / save).iterdir()} == {artefact.LOCK}
    assert not make.processes_naming(save)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_loss_that_is_no_number_stops_before_the_update(base, processes):
    """Row 6 is in the second step; the rows of that step are listed."""
    folder = base / f"nan {processes}"
    run = train(base, processes, save=folder.name, model_path="poisoned")
    rows = folder / "non_finite_step_000002.json"
    one_message(run, 2, "the loss of step 2 is nan", rows)
    listed = json.loads(rows.read_text())
    assert listed == {"step": 2, "what": "the loss of step 2 is nan", "rows": [4, 5, 6, 7]}
    assert column(folder, "step") == [1]
    assert not (folder / artefact.MANIFEST).exists()
    assert not make.processes_naming(folder)


def test_what_may_change_and_what_needs_allow_change(base):
    """LR is refused with both values shown; ALLOW_CHANGE=lr continues with it and records it."""
    assert train(base, 1, save="changing", stop_step=1).code == 0
    refused = train(base, 1, save="changing", lr=5e-4, seed=11)
    one_message(refused, 2, "another lr, seed", "lr 0.0006", "lr 0.0005", "ALLOW_CHANGE=lr,seed")
    one_message(train(base, 1, save="changing", allow_change="rl"), 2, "does not know rl")
    run = train(base, 1, save="changing", lr=5e-4, allow_change="lr")
    assert run.code == 0 and "CHANGED lr from 0.0006 to 0.0005" in run.output, run.errors
    assert column(base / "changing", "lr") == [0.0, 5e-4, pytest.approx(2.8e-4)]
    (change,) = artefact.read_manifest(base / "changing").made_by["changes"]
    assert (change["name"], change["from"], change["to"]) == ("lr", 6e-4, 5e-4)


def test_skip_steps_goes_on_without_the_batch(base):
    """The same run, told to leave the second step out: no update, no figures, the step counted."""
    changes = {"save": "skipping", "model_path": "poisoned", "save_every": 1}
    assert train(base, 1, **changes).code == 2
    run = train(base, 1, **changes, skip_steps="2-2")
    assert run.code == 0 and "resuming after step 1" in run.output, run.errors
    rows = read_metrics(base / "skipping")
    assert [row["step"] for row in rows] == [1, 3]
    assert rows[1]["sequences"] == 8 and rows[1]["lr"] == pytest.approx(3.3e-4)
    manifest = artefact.read_manifest(base / "skipping")
    assert manifest.counts["left_out"] == [2]
    first, last = (base / "skipping" / f"step_00000{n}" for n in (2, 3))
    before = load_file(first / "model.safetensors")["lm_head.weight"]
    assert not torch.equal(before, load_file(last / "model.safetensors")["lm_head.weight"])


@pytest.mark.parametrize("processes", [1, 2])
def test_ids_that_the_model_does_not_have(base, processes, tmp_path):
    """Where a corpus brings its tokenizer this is found before; here it brings none."""
    for path in (base / "corpus").glob("data_0.*"):
        shutil.copy(path, tmp_path)
    changes = {"data_dir": tmp_path, "tokenizer_path": "tokenizer", "model_config": "small.json"}
    run = train(base, processes, save=f"ids {processes}", **changes)
    one_message(run, 2, "row 6 of data_0", f"ids below {RARE}", f"found {RARE}")
    assert not make.processes_naming(f"ids {processes}")


def test_a_corpus_whose_tokens_are_cut_off(base, tmp_path):
    shutil.copytree(base / "corpus", tmp_path / "cut")
    path = tmp_path / "cut/data_0.bin"
    path.write_bytes(path.read_bytes()[:-2])
    one_message(train(base, 1, data_dir=tmp_path / "cut"), 3, path)


def test_a_folder_that_is_not_ours_is_not_written_to(base):
    folder = base / "foreign"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    one_message(train(base, 1, save="foreign"), 2, "foreign")
    assert not (folder / artefact.SETTINGS).exists()
