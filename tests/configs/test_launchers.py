"""The launchers' numbers, and how a launcher makes flags of variables."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from data_utils.program import CODE_ROOT
from eval import lm
from miniplm import score, selection
from pretrain.settings import TrainSettings
from tools import convert_tokenization, split_ref_data
from tools.process_data import tokenize_pile

GPUS = 8  # of the original's nodes; accumulation x micro-batch x GPUS is the global batch
ROW = "micro_batch accumulation lr lr_min warmup total save_every".split()
QWEN = {  # size: numbers in the order of ROW
    "200M": (8, 8, 6e-4, 6e-5, 2000, 100_000, 5000),
    "500M": (4, 16, 3e-4, 3e-5, 2000, 100_000, 5000),
    "1.2B": (4, 16, 2.5e-4, 2.5e-5, 2000, 100_000, 5000),
}
REFERENCE = (8, 8, 6e-4, 6e-5, 2000, 9500, 5000)
LLAMA = (8, 8, 6e-4, 6e-5, 2000, 100_000, 5000)
MAMBA = (16, 4, 2e-3, 1e-5, 10_000, 100_000, 5000)
PILE = "processed_data/pretrain/pile"
SELECTED = f"{PILE}-diff_samp-qwen_1.8B-qwen_104M-r0.5"
TRAINING = [  # launcher, configuration, corpus, method, numbers
    *(
        (f"scripts/pretrain/qwen/{size}.sh", f"qwen/{size}", f"{PILE}/qwen-1025", "pretrain", row)
        for size, row in QWEN.items()
    ),
    *(
        (f"scripts/miniplm/pretraining/{name}.sh", name, f"{SELECTED}/{corpus}", "miniplm", row)
        for name, corpus, row in (
            *((f"qwen/{size}", "qwen-1025", row) for size, row in QWEN.items()),
            ("llama3.1/212M", "qwen-llama3_1-1025", LLAMA),
            ("mamba/130M", "qwen-mamba-1025", MAMBA),
        )
    ),
]


@pytest.fixture(scope="module")
def echo(tmp_path_factory) -> Path:
    """A stand-in for Python that prints its arguments, one a line."""
    path = tmp_path_factory.mktemp("bin dir") / "python"
    path.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    path.chmod(0o755)
    return path


def words(echo, launcher, *arguments, cwd="/", **variables) -> list[str]:
    """The command that a launcher would run, from a clean environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(echo), "NPROC": "1", **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    result = subprocess.run(
        ["bash", launcher if launcher.startswith("..") else CODE_ROOT / launcher, *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def flags(command: list[str]) -> dict[str, str]:
    """--name value pairs after program and BASE_PATH."""
    return {name[2:]: value for name, value in zip(command[2::2], command[3::2], strict=True)}


def expected_flags(config: str, corpus: str, save: str, numbers: tuple) -> dict:
    row = dict(zip(ROW, numbers, strict=True))
    assert row["micro_batch"] * row["accumulation"] * GPUS == 512
    return {
        "model-config": f"configs/models/{config}.json",
        "data-dir": corpus,
        "save": save,
        "global-batch": 512,
        "micro-batch": row["micro_batch"],
        "lr": row["lr"],
        "lr-min": row["lr_min"],
        "warmup-steps": row["warmup"],
        "total-steps": row["total"],
        "save-every": row["save_every"],
    }


def as_numbers(values: dict) -> dict:
    return {
        k: v if k in ("model-config", "data-dir", "save") else float(v) for k, v in values.items()
    }


@pytest.mark.parametrize("case", TRAINING, ids=[case[0] for case in TRAINING])
def test_training_launchers_have_the_papers_numbers(case, echo):
    launcher, config, corpus, method, numbers = case
    command = words(echo, launcher, "/base")
    assert command[:2] == [str(CODE_ROOT / "pretrain/train.py"), "/base"]
    expected = expected_flags(config, corpus, f"results/{method}/{config}", numbers)
    if config == "mamba/130M":
        expected |= {"weight-decay": 0.1, "beta2": 0.95}
    assert as_numbers(flags(command)) == as_numbers(expected)
    assert (CODE_ROOT / f"configs/models/{config}.json").exists()


def test_every_training_launcher_is_held():
    folders = ("scripts/pretrain", "scripts/miniplm/pretraining")
    found = {str(p.relative_to(CODE_ROOT)) for f in folders for p in (CODE_ROOT / f).rglob("*.sh")}
    assert found == {case[0] for case in TRAINING} | {"scripts/pretrain/qwen/104M_ref.sh"}


def test_the_reference_launcher(echo):
    command = words(echo, "scripts/pretrain/qwen/104M_ref.sh", "/base")
    expected = expected_flags(
        "qwen/104M_ref", f"{PILE}_ref/qwen-1025", "checkpoints/qwen/104M_ref", REFERENCE
    )
    assert as_numbers(flags(command)) == as_numbers(expected)


def test_the_numbers_that_no_launcher_names():
    settings = TrainSettings()
    assert (settings.beta2, settings.weight_decay, settings.clip) == (0.98, 0.01, 1.0)
    assert (settings.seed, settings.log_every, settings.zero_stage) == (10, 10, 1)
    assert (settings.shuffle, settings.precision) == (False, "auto")


def test_the_numbers_of_programs_without_a_launcher():
    settings, numbers = TrainSettings(), dict(zip(ROW, QWEN["200M"], strict=True))
    assert (settings.micro_batch, settings.lr) == (numbers["micro_batch"], numbers["lr"])
    assert (settings.lr_min, settings.warmup_steps) == (numbers["lr_min"], numbers["warmup"])
    assert (settings.total_steps, settings.save_every) == (numbers["total"], numbers["save_every"])
    assert settings.global_batch == 512
    text = tokenize_pile.Settings()
    assert (text.max_length, text.shard_size, text.add_bos) == (1025, 1_000_000, False)
    assert selection.Settings().shard_size == 1_000_000
    scoring = score.Settings()
    assert (scoring.shards, scoring.tokens_per_batch) == ("0:200", 16 * 1024)
    assert split_ref_data.Settings().shards == "240:246"


@pytest.mark.parametrize(
    "name, text, corpus, more",
    [
        ("pile_qwen", "data/pile/train", f"{PILE}/qwen-1025", {}),
        (
            "dclm_qwen",
            "data/dclm",
            "processed_data/dclm/qwen-1025",
            {"split": "test", "source": "dclm"},
        ),
    ],
)
def test_tokenising_launchers(name, text, corpus, more, echo):
    command = words(echo, f"scripts/tools/process_data/{name}.sh", "/base")
    assert command[:2] == [str(CODE_ROOT / "tools/process_data/tokenize_pile.py"), "/base"]
    assert flags(command) == {
        "data-dir": text,
        "tokenizer-path": "checkpoints/qwen/1.8B",
        "save": corpus,
        "max-length": "1025",
        "shard-size": "1000000",
        **more,
    }


def test_the_evaluation_launcher(echo):
    """The original's took a port in the place where its users put the model."""
    for words_of_user, variables in (
        (["--model-path", "m", "--ckpt-name", "n"], {}),
        ([], {"MODEL_PATH": "m", "CKPT_NAME": "n"}),
    ):
        command = words(echo, "scripts/eval/lm.sh", "/base", *words_of_user, **variables)
        assert command[:2] == [str(CODE_ROOT / "eval/lm.py"), "/base"]
        assert flags(command) == {
            "model-path": "m",
            "ckpt-name": "n",
            "data-dir": "processed_data/dclm/qwen-1025",
            "split": "test",
        }


@pytest.mark.parametrize("model, store", [("1.8B", "qwen_1.8B"), ("104M", "qwen_104M")])
def test_scoring_launchers_score_the_same_corpus(model, store, echo):
    command = words(echo, f"scripts/miniplm/difference_sampling/{model}.sh", "/base")
    folder = {"1.8B": "checkpoints/qwen/1.8B", "104M": "checkpoints/qwen/104M_ref"}[model]
    assert command[:2] == [str(CODE_ROOT / "miniplm/score.py"), "/base"]
    assert flags(command) == {
        "model-path": folder,
        "data-dir": f"{PILE}/qwen-1025",
        "save": f"results/scores/pile/qwen-1025/{store}",
        "shards": "0:200",
    }
    command = words(echo, f"scripts/miniplm/difference_sampling/{model}.sh", COMPILE="true")
    assert flags(command)["compile"] == "true"


@pytest.mark.parametrize(
    "target, folder, bos",
    [("mamba", "mamba/130M", "false"), ("llama3_1", "llama3.1/212M", "true")],
)
def test_conversion_launchers_write_beside_the_corpus(target, folder, bos, echo):
    launcher = f"scripts/tools/convert_tokenization/convert_tokenization_qwen_{target}.sh"
    command = words(echo, launcher, "/base")
    assert command[:2] == [str(CODE_ROOT / "tools/convert_tokenization.py"), "/base"]
    assert flags(command) == {
        "data-dir": f"{SELECTED}/qwen-1025",
        "tokenizer-path": "checkpoints/qwen/1.8B",
        "target-tokenizer-path": f"checkpoints/{folder}",
        "save": f"{SELECTED}/qwen-{target}-1025",
        "max-length": "1025",
        "add-bos": bos,
    }
    command = words(echo, launcher, "/base", DATA_DIR="a b/qwen-65", MAX_LENGTH="65", WORKERS="3")
    assert flags(command)["save"] == f"a b/qwen-{target}-65" and flags(command)["workers"] == "3"


LAUNCHER = "scripts/pretrain/qwen/200M.sh"


def test_variables_override_and_flags_after_base_path_come_last(echo):
    more = ["--lr", "1e-3", "--save", "a b"]
    command = words(echo, LAUNCHER, "/base", *more, LR="2e-3", GLOBAL_BATCH="64", SEED="7")
    assert command[-4:] == more
    values = flags(command)  # the last one of a name wins, here as in the program
    assert (values["lr"], values["global-batch"], values["seed"]) == ("1e-3", "64", "7")
    assert command.index("2e-3") < command.index("1e-3")


def test_names_of_the_parts_make_the_paths(echo):
    names = {"DATA_NAME": "mix", "TOKENIZER_NAME": "bpe", "MAX_LENGTH": "65", "RATIO": "0.3"}
    names |= {"TEACHER_NAME": "T", "REF_NAME": "R"}
    command = words(echo, "scripts/miniplm/pretraining/qwen/200M.sh", "/base", **names)
    assert flags(command)["data-dir"] == "processed_data/pretrain/mix-diff_samp-T-R-r0.3/bpe-65"


def test_base_path_defaults_to_the_repository(echo):
    assert words(echo, LAUNCHER)[1] == str(CODE_ROOT)
    command = words(echo, LAUNCHER, "--lr", "1")
    assert command[1] == str(CODE_ROOT) and command[-2:] == ["--lr", "1"]


def test_spaces_and_relative_paths_reach_the_program_as_they_are(echo, tmp_path):
    assert words(echo, LAUNCHER, "/a b/c d")[1] == "/a b/c d"
    assert words(echo, LAUNCHER, "some/where", cwd=tmp_path)[1] == "some/where"
    relative = os.path.relpath(CODE_ROOT / LAUNCHER, tmp_path)
    assert words(echo, relative, "x", cwd=tmp_path)[0] == str(CODE_ROOT / "pretrain/train.py")


def test_more_processes_go_through_the_starter(echo):
    command = words(echo, LAUNCHER, "/base", "--seed", "3", NPROC="2", GRACE="9")
    assert command[0] == str(CODE_ROOT / "cluster/launch.py")
    start = command.index("pretrain/train.py")
    assert command[1:3] == ["--nproc", "2"] and command[start + 1] == "/base"
    assert command[command.index("--grace") + 1] == "9" and command[-2:] == ["--seed", "3"]


def test_which_python(echo, tmp_path):
    """$PYTHON, else the active environment's, else .venv's."""
    active = tmp_path / "env/bin"
    active.mkdir(parents=True)
    shutil.copy(echo, active / "python")
    other = tmp_path / "never"
    assert words(echo, LAUNCHER, "/b", VIRTUAL_ENV=str(other))[1] == "/b"
    assert words(None, LAUNCHER, "/b", PYTHON=None, VIRTUAL_ENV=str(active.parent))[1] == "/b"


@pytest.fixture(scope="module")
def counting(tmp_path_factory) -> Path:
    """A folder with a Python whose torch sees $SEEN GPUs, and a driver's program beside it."""
    folder = tmp_path_factory.mktemp("bin of a machine with GPUs")
    texts = {
        "python": 'if [ "$1" = -c ]; then echo note; echo "GPUs $SEEN"; exit; fi\n'
        "printf '%s\\n' \"$@\"\n",
        "nvidia-smi": "for i in 0 1 2 3 4 5 6 7; do echo GPU $i; done\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}")
        (folder / name).chmod(0o755)
    return folder


def processes(counting, **variables) -> str:
    """How many processes a launcher starts on a machine of 8 GPUs."""
    path = f"{counting}:{os.environ['PATH']}"
    command = words(counting / "python", LAUNCHER, "/b", PATH=path, **variables)
    started = command[0] == str(CODE_ROOT / "cluster/launch.py")
    return command[command.index("--nproc") + 1] if started else "1"


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({"SEEN": "8"}, "8"),
        ({"SEEN": "2", "CUDA_VISIBLE_DEVICES": "3,5"}, "2"),
        ({"SEEN": "2", "CUDA_VISIBLE_DEVICES": "GPU-8f2d,MIG-11ab"}, "2"),
        ({"SEEN": "1", "CUDA_VISIBLE_DEVICES": "0,-1,1"}, "1"),  # what follows -1 does not count
        ({"SEEN": "0", "CUDA_VISIBLE_DEVICES": "9,10"}, "1"),
        ({"SEEN": "1"}, "1"),  # of a GPU cut into several, a process sees one
        ({"CUDA_VISIBLE_DEVICES": "3"}, "1"),  # one at most: torch is not asked
        ({"CUDA_VISIBLE_DEVICES": ""}, "1"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "1"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f2d"}, "1"),
    ],
    ids=str,
)
def test_processes_are_the_gpus_that_torch_sees(variables, expected, counting):
    assert processes(counting, NPROC=None, **variables) == expected
    assert processes(counting, NPROC="4", **variables) == "4"


def test_gpus_that_cannot_be_counted(counting):
    """Never one process in silence on a machine of several."""
    path = f"{counting}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", CODE_ROOT / LAUNCHER, "/b"],
        env={"PATH": path, "PYTHON": str(counting / "python"), "SEEN": "no"},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 4 and done.stderr.startswith("ERROR ") and "NPROC" in done.stderr
    assert done.stderr.count("\n") == 1 and not done.stdout


def test_one_node_of_slurm_takes_no_places_from_the_shell_that_submitted(tmp_path):
    """Also NNODES and MASTER_ADDR of a former run: they would have it wait for other machines."""
    (tmp_path / "srun").write_text('#!/bin/sh\nshift 2\nSLURM_NODEID=0 exec "$@"\n')
    (tmp_path / "launcher.sh").write_text('echo "[$RANK$WORLD_SIZE$LOCAL_RANK$NNODES$MASTER_ADDR]"')
    (tmp_path / "srun").chmod(0o755)
    left = dict.fromkeys(("RANK", "WORLD_SIZE", "LOCAL_RANK", "NNODES", "MASTER_ADDR"), "2")
    slurm = {"SLURM_NNODES": "1", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1"}
    done = subprocess.run(
        ["bash", CODE_ROOT / "scripts/slurm/job.sh", tmp_path / "launcher.sh", "/b"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **left, **slurm},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0 and done.stdout.endswith("[]\n"), done.stderr


NAMED = "scripts/miniplm/pretraining/qwen/200M.sh"  # its corpus has all names in it


@pytest.mark.parametrize(
    "written",
    "0.5 0.50 .5 5e-1 5E-01 00.5 1 1.0 1. 0.25 1e-5 0.00001 .1234567 0.3000 3e-01".split(),
)
def test_a_ratio_is_one_folder_however_it_is_written(written, echo):
    """For the launchers as for the selection."""
    corpus = flags(words(echo, NAMED, "/base", RATIO=written))["data-dir"]
    assert corpus == selection.Settings(ratio=float(written)).output_folder()
    converted = "scripts/tools/convert_tokenization/convert_tokenization_qwen_mamba.sh"
    assert flags(words(echo, converted, "/base", RATIO=written))["data-dir"] == corpus


@pytest.mark.parametrize(
    "variables",
    [
        *({"RATIO": value} for value in "0 0.0 1.5 2 -0.5 nan inf 0x1 half 0,5 50% 1e5".split()),
        *({"RATIO": value} for value in ("'a", "0.5 ", "0.5\n1", ".", "1e-400", "$(ls)")),
        *({"MAX_LENGTH": value} for value in ("0", "-1", "1e3", "01025", "a", "1025 ", "1.5")),
        *(
            {name: value}
            for name in ("DATA_NAME", "TOKENIZER_NAME", "TEACHER_NAME", "REF_NAME")
            for value in ("a/b", "..", "/x", "-x", ".x", "a\nb", "a\tb", "\x1b")
        ),
    ],
    ids=ascii,
)
def test_names_that_are_none_are_refused_before_anything_starts(variables, echo):
    for launcher in (NAMED, "scripts/eval/lm.sh"):
        result = subprocess.run(
            ["bash", CODE_ROOT / launcher, "/base"],
            env={"PATH": os.environ["PATH"], "PYTHON": str(echo), "NPROC": "1", **variables},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 2 and result.stdout == ""
        assert result.stderr.startswith("ERROR ") and " Fix: " in result.stderr
        assert next(iter(variables)) in result.stderr


def test_names_with_spaces_and_other_letters_work(echo):
    variables = {"DATA_NAME": "my pile", "TEACHER_NAME": "東京 1.8B", "REF_NAME": "$(a)*"}
    corpus = flags(words(echo, NAMED, "/base", **variables))["data-dir"]
    names = {name.lower(): value for name, value in variables.items()}
    assert corpus == selection.Settings(**names).output_folder()


REACHED = {  # launcher: its program's settings, and the variables of other names
    LAUNCHER: (TrainSettings, {}),
    "scripts/miniplm/difference_sampling/1.8B.sh": (score.Settings, {"shards": "SCORE_SHARDS"}),
    "scripts/tools/process_data/pile_qwen.sh": (tokenize_pile.Settings, {"data_dir": "TEXT"}),
    "scripts/tools/convert_tokenization/convert_tokenization_qwen_mamba.sh": (
        convert_tokenization.Settings,
        {},
    ),
    "scripts/eval/lm.sh": (lm.Settings, {}),
}


@pytest.mark.parametrize("launcher", REACHED)
def test_every_setting_can_be_set_by_a_variable(echo, launcher):
    settings, other_names = REACHED[launcher]
    names = [field.name for field in dataclasses.fields(settings) if field.name != "base_path"]
    variables = {other_names.get(name, name.upper()): "7" for name in names}
    passed = flags(words(echo, launcher, "/b", **variables))
    assert {name.replace("_", "-"): "7" for name in names} == passed
