"""Where a process takes its rank and its group from, whatever other variables are set.

.venv/bin/python -m pytest tests/cluster/test_place.py
"""

import os
import shutil
import socket
import subprocess

import pytest

from cluster import launch, launch_deepspeed, place, processes
from data_utils.errors import InputError
from data_utils.program import CODE_ROOT
from tests import make, programs
from tests.pretrain.runs import LAUNCHER, VARIABLES, call, flags, same_run

NOWHERE = "192.0.2.1"  # an address that nobody has (RFC 5737)
TORCHRUN = {
    **{"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"},
}
OTHERS = {  # of cluster managers and MPI: they say nothing about this project's processes
    "LOCAL_RANK": "3",
    "MASTER_ADDR": NOWHERE,
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "2",
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "GLOO_SOCKET_IFNAME": "eth77",
    "NCCL_SOCKET_IFNAME": "eth77",
    "PET_MAX_RESTARTS": "3",
    "PET_RDZV_BACKEND": "static",
    "PET_RDZV_ENDPOINT": f"{NOWHERE}:29400",
    "PET_NO_PYTHON": "1",
    "PET_LOCAL_ADDR": NOWHERE,
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """None of these variables, except those that a test sets; restored afterwards."""
    for name in {*TORCHRUN, *OTHERS, "RUN_RECORD", "RUN_LAUNCHER"}:
        monkeypatch.setenv(name, "")  # so that what the code removes comes back, too
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def taken():
    """A port of this machine that is in use."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


CLAIMS = {
    "Kubeflow": {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "m", "MASTER_PORT": "1"},
    "one of another torchrun's": TORCHRUN,
    "WORLD_SIZE alone": {"WORLD_SIZE": "2"},
    "RANK alone": {"RANK": "1"},
    "no number": {"WORLD_SIZE": "two"},
    "half of the mark": {**TORCHRUN, "RUN_RECORD": "record"},
    "a mark and no place": {"RUN_RECORD": "r", "RUN_LAUNCHER": "l 1", "WORLD_SIZE": "2"},
}


@pytest.mark.parametrize("name", CLAIMS)
def test_processes_that_nobody_started_are_an_error(name, monkeypatch):
    for variable, value in CLAIMS[name].items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(InputError) as caught:
        place.own_place()
    assert caught.value.code == 2 and "unset RANK WORLD_SIZE" in str(caught.value)


@pytest.mark.parametrize(
    "left", [{}, OTHERS, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "", "RANK": ""}]
)
def test_one_process_is_one_whatever_else_is_left(left, monkeypatch):
    for variable, value in left.items():
        monkeypatch.setenv(variable, value)
    assert place.local_rank() == 0 and not place.launched()
    assert place.own_place() == (0, 1)
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} & os.environ.keys()


def test_a_launchers_process_has_its_place(monkeypatch):
    marks = {"RUN_RECORD": "record", "RUN_LAUNCHER": "machine 1"}
    for variable, value in {**TORCHRUN, **marks, "OMPI_COMM_WORLD_LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(variable, value)
    assert place.own_place() == (1, 2) and place.local_rank() == 1
    assert "OMPI_COMM_WORLD_LOCAL_RANK" not in os.environ  # DeepSpeed compares it


@pytest.mark.parametrize("name", ["Kubeflow", "one of another torchrun's", "RANK alone"])
def test_no_training_on_a_share_of_the_batches(name, base):
    run = call(base, flags(SAVE="never"), **CLAIMS[name])
    programs.one_message(run, 2, "RANK")
    assert not (base / "never").exists()


def test_several_scoring_need_no_group(base):
    """Scoring shares its work through the file system: pods of a manager are just more workers."""
    make.save_model(base / "scorer", make.qwen_config(600), 0, base / "tokenizer")
    words = [base, "--model-path", "scorer", "--data-dir", "corpus", "--save", "scores"]
    run = programs.call(base, "miniplm.score", *words, **OTHERS, WORLD_SIZE=4, RANK=3)
    assert run.code == 0, run.errors
    assert (base / "scores/manifest.json").exists()


def test_one_process_takes_nothing_from_others_variables(base, trained_by_one, taken):
    run = call(base, flags(SAVE="one"), **OTHERS, MASTER_PORT=taken)
    assert run.code == 0, run.errors
    same_run(base / "one", trained_by_one)


@pytest.mark.parametrize(
    "launcher, two", [("torchrun", ["--nproc", 2]), ("deepspeed", ["--hostfile", "hosts"])]
)
def test_a_launch_takes_nothing_from_others_variables(launcher, two, base, trained_by_two, taken):
    """Another machine's address, a port in use, an interface that does not exist."""
    (base / "hosts").write_text("localhost slots=2\n")
    left = {**OTHERS, "WORLD_SIZE": 8, "RANK": 5, "MASTER_PORT": taken}
    words = ["--launcher", launcher, *two, "--master-addr", NOWHERE, "--master-port", taken]
    words += ["pretrain/train.py", base, *flags(SAVE=launcher)]
    run = programs.call(base, "cluster.launch", *words, **left)
    assert run.code == 0, run.errors
    same_run(base / launcher, trained_by_two)


@pytest.mark.skipif(not shutil.which("unshare"), reason="there is no unshare")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_machine_whose_name_has_no_address(processes, base, trained_by_one, trained_by_two):
    script = 'hostname no-such-host.invalid && exec bash "$@"'
    save = f"nameless {processes}"
    command = ["unshare", "--uts", "bash", "-c", script, "sh", CODE_ROOT / LAUNCHER, base]
    if subprocess.run(["unshare", "--uts", "true"], check=False).returncode != 0:
        pytest.skip("unshare is not permitted")
    settings = {**VARIABLES, "NPROC": processes, "SAVE": save}
    done = subprocess.run(
        command,
        env={**os.environ, **{name: str(value) for name, value in settings.items()}},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    same_run(base / save, trained_by_one if processes == 1 else trained_by_two)


@pytest.mark.parametrize("own", ["127.0.1.1", None, "10.1.2.3"])
def test_a_machine_whose_name_is_its_loopbacks_talks_to_others_over_another(own, monkeypatch):
    """The address of machine 0 says which; gloo decides if the own name's address will do."""

    def look_up(name: str) -> str:
        if own is None:
            raise socket.gaierror
        return own

    monkeypatch.setattr(socket, "gethostbyname", look_up)
    processes.use_interface_to("127.0.0.1")
    assert os.environ.get("GLOO_SOCKET_IFNAME") == (None if own == "10.1.2.3" else "lo")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "the user's")
    processes.use_interface_to("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "the user's"


def test_one_machine_talks_over_its_loopback(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth77")
    processes.use_loopback()
    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == "lo"


def test_deepspeeds_launcher_refuses_a_choice_of_gpus(monkeypatch):
    """It takes the first ones."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    launch_deepspeed.check_devices(2)
    for visible in ("5,2", "0", "", "GPU-8f2d"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(InputError, match="CUDA_VISIBLE_DEVICES"):
            launch_deepspeed.check_devices(2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    launch_deepspeed.check_devices(2)


@pytest.mark.parametrize("seen, started", [(0, 4), (1, 1), (8, 4)])
def test_each_process_has_a_gpu(seen, started, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    launch.require_devices(started)
    if seen:
        with pytest.raises(InputError, match=f"at most {seen}, found {seen + 1}"):
            launch.require_devices(seen + 1)
