"""A world to evaluate in, and the same evaluation by one process, by two, and by lm-eval itself."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from data_utils.artefact_writer import lock
from data_utils.program import CODE_ROOT
from eval.harness_tasks import NINE
from tests import make
from tests.eval import harness_data
from tests.tools import fake_hub

ACCELERATE = "1.15.0"
RESULTS = "results/eval/harness"
VOCAB = 600


def build(base: Path) -> None:
    """BASE_PATH: model, its tokenizer, hf (HF_HOME), story cloze, and the results one and two."""
    tokenizer = make.train_tokenizer(base / "tokenizer", make.documents(50), VOCAB)
    make.save_model(base / "model", make.qwen_config(VOCAB), 0, tokenizer)
    harness_data.save_story_cloze(base / "story cloze")
    prefetch(base)
    for name, processes in (("one", 1), ("two", 2)):
        flags = ["--model-path", "model", "--ckpt-name", name, "--save", f"results/{name}"]
        variables = {"NPROC": processes, "HF_HOME": base / "hf", "STORYCLOZE_DIR": "story cloze"}
        run = make.run("scripts/eval/harness.sh", base, *flags, **variables)
        (base / f"{name}.out").write_text(run.stdout)


def prefetch(base: Path) -> Path:
    """base/hf with the data sets of eight tasks, as a user gets them."""
    with fake_hub.serve(harness_data.save_repositories(base / "hub")) as server:
        variables = fake_hub.variables(server.server_port, base)
        make.run("eval/harness.py", "--prefetch", base / "hf", **variables)
    return base / "hf"


def accelerate() -> Path:
    """A folder with the package accelerate, which lm-eval's own models need; or skip the test.

    Not in the requirements: where it is installed, transformers takes other ways.
    """
    cache = Path(tempfile.gettempdir()) / f"miniplm-packages-{os.getuid()}"
    folder = cache / f"accelerate-{ACCELERATE}"
    with lock(cache, wait=True):
        if not folder.exists():
            fetched = tempfile.mkdtemp(dir=cache)
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
            command += ["--target", fetched, f"accelerate=={ACCELERATE}"]
            done = subprocess.run(command, capture_output=True, encoding="utf-8")
            if done.returncode:
                pytest.skip(f"accelerate cannot be fetched: {done.stderr[-200:]}")
            Path(fetched).rename(folder)
    return folder


def by_lm_eval(base: Path, folder: Path) -> dict:
    """The results of lm-eval's own command line for the model and the nine tasks."""
    command = [sys.executable, CODE_ROOT / "tests/eval/lm_eval_cli.py", "run", "--model", "hf"]
    # Beside the model's config.json AutoTokenizer would take another pre-tokenizer than the file's.
    command += ["--model_args", f"pretrained={base / 'model'},tokenizer={base / 'tokenizer'}"]
    command += ["--device", "cpu", "--batch_size", "4", "--tasks", ",".join(NINE)]
    command += ["--include_path", CODE_ROOT / "configs/lm_harness_tasks", "--output_path", folder]
    environment = {"PYTHONPATH": accelerate(), "HF_HOME": base / "hf", "HF_DATASETS_OFFLINE": "1"}
    environment["STORYCLOZE_DIR"] = base / "story cloze"
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    (path,) = folder.rglob("results_*.json")
    return json.loads(path.read_text())
