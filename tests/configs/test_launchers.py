"""The launchers' numbers, and how a launcher turns variables into flags."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from baselines import generate, teacher_cache
from data_utils.flags import parse
from data_utils.names import flags_of_variables
from data_utils.program import CODE_ROOT
from eval import harness, lm, scaling_law
from miniplm import proxy, score, selection
from miniplm.criteria import CRITERIA
from pretrain.objectives import minillm, score_regression, vanilla_kd
from pretrain.settings import TrainSettings
from tools import convert_tokenization, split_ref_data
from tools.process_data import tokenize_pile

GPUS = 8  # of the original's nodes; accumulation x micro-batch x GPUS is the global batch
ROW = "micro_batch accumulation lr lr_min warmup_steps total_steps save_every".split()
MODELS = {  # numbers in the order of ROW, and others
    "qwen/104M_ref": (8, 8, 6e-4, 6e-5, 2000, 9500, 5000, {}),
    "qwen/200M": (8, 8, 6e-4, 6e-5, 2000, 100_000, 5000, {}),
    "qwen/300M": (8, 8, 6e-4, 6e-5, 2000, 100_000, 5000, {}),
    "qwen/500M": (4, 16, 3e-4, 3e-5, 2000, 100_000, 5000, {}),
    "qwen/1.2B": (4, 16, 2.5e-4, 2.5e-5, 2000, 100_000, 5000, {}),
    "llama3.1/212M": (8, 8, 6e-4, 6e-5, 2000, 100_000, 5000, {}),
    "mamba/130M": (16, 4, 2e-3, 1e-5, 10_000, 100_000, 5000, {"weight_decay": 0.1, "beta2": 0.95}),
}
DISTILLED = {  # with a teacher online: steps of equal compute
    "qwen/200M": (4, 16, 6e-4, 6e-5, 2000, 25_000, 1000, {"objective": "vanilla_kd"}),
    "qwen/500M": (4, 16, 3e-4, 3e-5, 2000, 45_000, 1000, {"objective": "vanilla_kd"}),
    "qwen/1.2B": (2, 32, 2.5e-4, 2.5e-5, 2000, 65_000, 1000, {"objective": "vanilla_kd"}),
}
ROLLED_OUT = {  # likewise, with rollouts, from a pre-trained student
    model: (micro, accumulation, *DISTILLED[model][2:5], steps, 1000, others)
    for model, micro, accumulation, steps in (
        ("qwen/200M", 2, 32, 15_000),
        ("qwen/500M", 2, 32, 30_000),
        ("qwen/1.2B", 1, 64, 40_000),
    )
    for others in ({"objective": "minillm", "model_path": f"results/pretrain/{model}"},)
}
PILE = "processed_data/pretrain/pile"
SELECTED = f"{PILE}-diff_samp-qwen_1.8B-qwen_104M-r0.5"
GENERATED = f"{PILE}-qwen_1.8B-gen"
TOKENS = {"llama3.1/212M": "qwen-llama3_1-1025", "mamba/130M": "qwen-mamba-1025"}


def numbers(model: str, models: dict = MODELS) -> dict[str, float | str]:
    *row, others = models[model]
    values = dict(zip(ROW, row, strict=True))
    assert values["micro_batch"] * values.pop("accumulation") * GPUS == 512
    return {"global_batch": 512, **values, **others}


def training(model: str, corpora: str, results: str, models=MODELS) -> tuple[str, dict]:
    config = f"configs/models/{model}.json"
    corpus = f"{corpora}/{TOKENS.get(model, 'qwen-1025')}"
    paths = {"model_config": config, "data_dir": corpus, "save": f"{results}/{model}"}
    return "pretrain/train.py", {**paths, **numbers(model, models)}


def scoring(model: str, name: str) -> tuple[str, dict]:
    paths = {"model_path": model, "data_dir": f"{PILE}/qwen-1025"}
    save = f"results/scores/pile/qwen-1025/{name}"
    return "miniplm/score.py", {**paths, "save": save, "shards": "0:200"}


def predicting(proxy: str, name: str) -> tuple[str, dict]:
    return "miniplm/proxy.py", scoring(proxy, name)[1]


def regressing() -> tuple[str, dict]:
    numbers = dict(zip(ROW, (8, 8, 1e-4, 1e-5, 200, 5000, 1000), strict=True))
    assert numbers["micro_batch"] * numbers.pop("accumulation") * GPUS == 512
    return "pretrain/train.py", {
        **numbers,
        "global_batch": 512,
        "objective": "score_regression",
        "model_path": "checkpoints/qwen/104M_ref",
        "data_dir": f"{PILE}_proxy/qwen-1025",
        "save": "checkpoints/qwen/104M_proxy",
        "labels": "results/scores/pile/qwen-1025/diff-qwen_1.8B-qwen_104M",
    }


def storing(model: str, name: str) -> tuple[str, dict]:
    _, scores = scoring(model, name)
    return "baselines/teacher_cache.py", {
        **scores,
        "cache": f"results/kd_cache/pile/qwen-1025/{name}",
    }


def generating(model: str, name: str) -> tuple[str, dict]:
    paths = {"model_path": model, "data_dir": f"{PILE}/qwen-1025"}
    return "baselines/generate.py", {
        **paths,
        "save": f"{GENERATED}/qwen-1025",
        "continuations": f"results/continuations/pile/qwen-1025/{name}",
        "shards": "0:52",
    }


def tokenizing(text: str, corpus: str, **more: str) -> tuple[str, dict]:
    paths = {"data_dir": text, "tokenizer_path": "checkpoints/qwen/1.8B", "save": corpus}
    sizes = {"max_length": 1025, "shard_size": 1_000_000}
    return "tools/process_data/tokenize_pile.py", {**paths, **sizes, **more}


def converting(target: str, name: str, add_bos: str) -> tuple[str, dict]:
    paths = {"data_dir": f"{SELECTED}/qwen-1025", "save": f"{SELECTED}/qwen-{name}-1025"}
    paths |= {"tokenizer_path": "checkpoints/qwen/1.8B", "target_tokenizer_path": target}
    return "tools/convert_tokenization.py", {**paths, "max_length": 1025, "add_bos": add_bos}


STUDENTS = [model for model in MODELS if model != "qwen/104M_ref"]
SAMPLING, PROCESS = "scripts/miniplm/difference_sampling", "scripts/tools/process_data"
CONVERSION = "scripts/tools/convert_tokenization/convert_tokenization_qwen"
COMMANDS = {  # launcher: program, its flags
    **{f"scripts/pretrain/{m}.sh": training(m, PILE, "results/pretrain") for m in STUDENTS},
    **{
        f"scripts/miniplm/pretraining/{m}.sh": training(m, SELECTED, "results/miniplm")
        for m in STUDENTS
    },
    **{
        f"scripts/{method}/{m}.sh": training(m, corpora, f"results/{method}", DISTILLED)
        for m in DISTILLED
        for method, corpora in (("vanilla_kd", PILE), ("miniplm_kd", SELECTED))
    },
    **{
        f"scripts/seqkd/{m}.sh": training(m, GENERATED, "results/seqkd")
        for m in DISTILLED  # with the numbers of pre-training: the teacher is not online
    },
    "scripts/seqkd/generate.sh": generating("checkpoints/qwen/1.8B", "qwen_1.8B"),
    **{
        f"scripts/minillm/{m}.sh": training(m, PILE, "results/minillm", ROLLED_OUT)
        for m in ROLLED_OUT
    },
    "scripts/pretrain/qwen/104M_ref.sh": training("qwen/104M_ref", f"{PILE}_ref", "checkpoints"),
    f"{SAMPLING}/1.8B.sh": scoring("checkpoints/qwen/1.8B", "qwen_1.8B"),
    "scripts/vanilla_kd/cache_teacher.sh": storing("checkpoints/qwen/1.8B", "qwen_1.8B"),
    f"{SAMPLING}/104M.sh": scoring("checkpoints/qwen/104M_ref", "qwen_104M"),
    "scripts/miniplm/proxy/train.sh": regressing(),
    "scripts/miniplm/proxy/score.sh": predicting(
        "checkpoints/qwen/104M_proxy", "proxy-qwen_1.8B-qwen_104M"
    ),
    f"{PROCESS}/pile_qwen.sh": tokenizing("data/pile/train", f"{PILE}/qwen-1025"),
    f"{PROCESS}/dclm_qwen.sh": tokenizing(
        "data/dclm", "processed_data/dclm/qwen-1025", split="test", source="dclm"
    ),
    f"{CONVERSION}_mamba.sh": converting("checkpoints/mamba/130M", "mamba", "false"),
    f"{CONVERSION}_llama3_1.sh": converting("checkpoints/llama3.1/212M", "llama3_1", "true"),
    "scripts/eval/harness.sh": ("eval/harness.py", {}),
    "scripts/eval/lm.sh": (
        "eval/lm.py",
        {"data_dir": "processed_data/dclm/qwen-1025", "split": "test"},
    ),
    "scripts/eval/scaling_law.sh": ("eval/scaling_law.py", {}),
}
SETTINGS = {  # program: its settings, and the variables of other names
    "pretrain/train.py": (TrainSettings, {}),
    "minillm": (minillm.Settings, {}),
    "vanilla_kd": (vanilla_kd.Settings, {}),
    "score_regression": (score_regression.Settings, {}),
    "baselines/teacher_cache.py": (teacher_cache.Settings, {"shards": "SCORE_SHARDS"}),
    "baselines/generate.py": (generate.Settings, {"shards": "SCORE_SHARDS"}),
    "miniplm/score.py": (score.Settings, {"shards": "SCORE_SHARDS"}),
    "miniplm/proxy.py": (proxy.Settings, {"shards": "SCORE_SHARDS"}),
    "tools/process_data/tokenize_pile.py": (tokenize_pile.Settings, {"data_dir": "TEXT"}),
    "tools/convert_tokenization.py": (convert_tokenization.Settings, {}),
    "eval/harness.py": (harness.Settings, {}),
    "eval/lm.py": (lm.Settings, {}),
    "eval/scaling_law.py": (scaling_law.Settings, {}),
}
LAUNCHER = "scripts/pretrain/qwen/200M.sh"


@pytest.fixture(scope="module")
def echo(tmp_path_factory) -> Path:
    """A stand-in for Python that prints its arguments, one per line."""
    path = tmp_path_factory.mktemp("bin dir") / "python"
    path.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    path.chmod(0o755)
    return path


def start(echo, launcher, *arguments, cwd="/", **variables) -> subprocess.CompletedProcess:
    """Run a launcher in a clean environment; variables that are None are not in it."""
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(echo), "NPROC": "1", **variables}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        ["bash", launcher if launcher.startswith("..") else CODE_ROOT / launcher, *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
    )


def words(*arguments, **options) -> list[str]:
    """The command that a launcher would run."""
    result = start(*arguments, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def flags(command: list[str]) -> dict[str, str]:
    """{name: value} after program and BASE_PATH."""
    names = [word[2:].replace("-", "_") for word in command[2::2]]
    return dict(zip(names, command[3::2], strict=True))


def test_every_launcher_is_compared():
    found = {str(p.relative_to(CODE_ROOT)) for p in (CODE_ROOT / "scripts").glob("*/**/*.sh")}
    assert {name for name in found if "slurm" not in name and "experiments" not in name} == set(
        COMMANDS
    )


@pytest.mark.parametrize("launcher", COMMANDS)
def test_the_command_of_a_launcher(launcher, echo):
    """Numbers and paths are the paper's and the original's (paths that connect)."""
    program, expected = COMMANDS[launcher]
    command = words(echo, launcher, "/base")
    assert command[:2] == [str(CODE_ROOT / program), "/base"]
    passed = flags(command)
    for name, value in expected.items():
        if isinstance(value, int | float):
            passed[name] = float(passed[name])
    assert passed == expected
    assert (CODE_ROOT / expected.get("model_config", "")).exists()


def test_the_numbers_that_no_launcher_names():
    settings = TrainSettings()
    assert (settings.beta2, settings.weight_decay, settings.clip) == (0.98, 0.01, 1.0)
    assert (settings.seed, settings.log_every, settings.zero_stage) == (10, 10, 1)
    assert (settings.shuffle, settings.precision) == (False, "auto")
    row = numbers("qwen/200M")
    assert {name: getattr(settings, name) for name in row} == row
    text = tokenize_pile.Settings()
    assert (text.max_length, text.shard_size, text.add_bos) == (1025, 1_000_000, False)
    assert selection.Settings().shard_size == 1_000_000
    scoring = score.Settings()
    assert (scoring.shards, scoring.tokens_per_batch) == ("0:200", 16 * 1024)
    text = generate.Settings()
    assert (text.prompt_length, text.temperature, text.top_p) == (768, 1.0, 1.0)
    assert split_ref_data.Settings().shards == "240:246"


def test_a_converted_corpus_is_beside_its_source(echo):
    command = words(echo, f"{CONVERSION}_mamba.sh", DATA_DIR="a b/qwen-65", MAX_LENGTH="65")
    assert flags(command)["save"] == "a b/qwen-mamba-65"


def test_variables_override_and_flags_after_base_path_come_last(echo):
    more = ["--lr", "1e-3", "--save", "a b"]
    command = words(echo, LAUNCHER, "/base", *more, LR="2e-3", GLOBAL_BATCH="64", SEED="7")
    assert command[-4:] == more
    values = flags(command)  # the last one of a name wins, here as in the program
    assert (values["lr"], values["global_batch"], values["seed"]) == ("1e-3", "64", "7")
    assert command.index("2e-3") < command.index("1e-3")


def test_names_of_the_parts_make_the_paths(echo):
    names = {"DATA_NAME": "mix", "TOKENIZER_NAME": "bpe", "MAX_LENGTH": "65", "RATIO": "0.3"}
    names |= {"TEACHER_NAME": "T", "REF_NAME": "R"}
    command = words(echo, "scripts/miniplm/pretraining/qwen/200M.sh", "/base", **names)
    assert flags(command)["data_dir"] == "processed_data/pretrain/mix-diff_samp-T-R-r0.3/bpe-65"


@pytest.mark.parametrize(
    "criterion, variables",
    [
        *((name, {}) for name in CRITERIA if name != "external"),
        ("reference_band", {"BAND": "low"}),
        ("temperature", {"TAU": "0.50"}),
        ("temperature", {"TAU": "1e-7"}),
        ("prior", {"SCORE_SHARDS": "0:1"}),
        ("external", {"SCORE_FILE": "a b/c d.npy"}),
    ],
)
def test_an_exported_criterion_names_the_corpus_as_the_selection_does(criterion, variables, echo):
    variables = {"CRITERION": criterion, **variables}
    command = words(echo, "scripts/miniplm/pretraining/qwen/200M.sh", "/base", **variables)
    settings = parse(selection.Settings, flags_of_variables(selection.Settings, [], variables))
    assert flags(command)["data_dir"] == settings.output_folder()


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
    """It never starts just one process without saying so."""
    path = f"{counting}:{os.environ['PATH']}"
    done = start(counting / "python", LAUNCHER, "/b", PATH=path, NPROC=None, SEEN="no")
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
    corpus = flags(words(echo, NAMED, "/base", RATIO=written))["data_dir"]
    assert corpus == selection.Settings(ratio=float(written)).output_folder()
    converted = f"{CONVERSION}_mamba.sh"
    assert flags(words(echo, converted, "/base", RATIO=written))["data_dir"] == corpus


@pytest.mark.parametrize(
    "variables",
    [
        *({"RATIO": value} for value in "0 0.0 1.5 2 -0.5 nan inf 0x1 half 0,5 50% 1e5".split()),
        *({"RATIO": value} for value in ("'a", "0.5 ", "0.5\n1", ".", "1e-400", "$(ls)")),
        *({"TAU": value, "CRITERION": "temperature"} for value in ("x", "-1", ".", "0.0")),
        *({"MAX_LENGTH": value} for value in ("0", "-1", "1e3", "01025", "a", "1025 ", "1.5")),
        *(
            {name: value}
            for name in ("DATA_NAME", "TOKENIZER_NAME", "TEACHER_NAME", "REF_NAME", "CRITERION")
            for value in ("a/b", "..", "/x", "-x", ".x", "a\nb", "a\tb", "\x1b")
        ),
    ],
    ids=ascii,
)
def test_names_that_are_none_are_refused_before_anything_starts(variables, echo):
    for launcher in (NAMED, "scripts/eval/lm.sh"):
        result = start(echo, launcher, "/base", **variables)
        assert result.returncode == 2 and result.stdout == ""
        assert result.stderr.startswith("ERROR ") and " Fix: " in result.stderr
        assert next(iter(variables)) in result.stderr


def test_names_with_spaces_and_other_letters_work(echo):
    variables = {"DATA_NAME": "my pile", "TEACHER_NAME": "東京 1.8B", "REF_NAME": "$(a)*"}
    corpus = flags(words(echo, NAMED, "/base", **variables))["data_dir"]
    names = {name.lower(): value for name, value in variables.items()}
    assert corpus == selection.Settings(**names).output_folder()


@pytest.mark.parametrize("launcher", COMMANDS)
def test_every_setting_can_be_set_by_a_variable(echo, launcher):
    program, passed = COMMANDS[launcher]
    settings, other_names = SETTINGS[passed.get("objective", program)]
    names = [field.name for field in dataclasses.fields(settings) if field.name != "base_path"]
    variables = {other_names.get(name, name.upper()): "7" for name in names}
    assert flags(words(echo, launcher, "/b", **variables)) == dict.fromkeys(names, "7")


def test_every_setting_of_the_start_can_be_set_by_a_variable(echo):
    """But for NPROC, which becomes --nproc."""
    names = "LAUNCHER NNODES NODE_RANK MASTER_ADDR MASTER_PORT HOSTFILE GRACE DIST_TIMEOUT".split()
    command = words(echo, LAUNCHER, "/b", **dict.fromkeys(names, "7"))
    start = command[: command.index("pretrain/train.py")]
    expected = {name.lower(): "7" for name in names}
    assert flags(["", *start]) == {"nproc": "1", **expected}


def test_a_method_adds_the_variables_of_its_objective(tmp_path, echo):
    """As flags behind those of train.py."""
    (tmp_path / "launcher.sh").write_text(
        f'source "{CODE_ROOT}/scripts/common.sh" "$@"\ntrain TEACHER_PATH KD_RATIO\n'
    )
    command = words(echo, str(tmp_path / "launcher.sh"), "/b", TEACHER_PATH="a b", KD_RATIO="0.5")
    assert command[-4:] == ["--teacher-path", "a b", "--kd-ratio", "0.5"]
