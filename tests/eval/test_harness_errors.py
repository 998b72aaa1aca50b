"""What is wrong is said before any model is loaded, and nothing asks the network."""

import json
import shutil
from pathlib import Path

import pytest

from data_utils import artefact
from data_utils.atomic_files import sha256
from data_utils.errors import ArtefactError, InputError
from eval import harness, harness_tasks
from tests import make, programs
from tests.eval import lm_eval_cli

TASK = {
    "task": "mine",
    "dataset_path": "json",
    "doc_to_text": "{{context}}",
    "doc_to_target": "{{answer}}",
    "test_split": "test",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    """BASE_PATH with a model and a task of two documents."""
    base = tmp_path_factory.mktemp("a base")
    make.save_model(base / "model", make.qwen_config(600), 0, tokenizer_folder)
    write_task(base, "mine", output_type="loglikelihood")
    return base


def write_task(base: Path, name: str, **more: object) -> None:
    folder = base / harness_tasks.OURS
    folder.mkdir(parents=True, exist_ok=True)
    documents = [{"context": "import", "answer": " os"}, {"context": "a", "answer": " b"}]
    (folder / "data.jsonl").write_text("".join(json.dumps(d) + "\n" for d in documents))
    data = {"dataset_kwargs": {"data_files": {"test": str(folder / "data.jsonl")}}}
    (folder / f"{name}.yaml").write_text(json.dumps({**TASK, **data, "task": name, **more}))


@pytest.fixture(autouse=True)
def few_tasks(monkeypatch, tmp_path):
    """Without looking through all of lm-eval's; and without what these calls leave behind."""
    import lm_eval.tasks._index as index

    monkeypatch.setattr(index.TaskIndex, "build", staticmethod(lm_eval_cli.build_few))
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "STORYCLOZE_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def prepare(base: Path, **settings: object) -> harness.Prepared:
    flags = {"model_path": "model", "tasks": "mine", "precision": "fp32", **settings}
    return harness.prepare(harness.Settings(base_path=str(base), **flags))


def refused(base: Path, kind: type, *parts: str, **settings: object) -> None:
    with pytest.raises(kind) as caught:
        prepare(base, **settings)
    for part in (*parts, " Fix: "):
        assert part in str(caught.value)


def test_what_is_right_is_prepared(base):
    prepared = prepare(base)
    assert list(prepared.tasks) == ["mine"] and prepared.checkpoints[0].name == "model"


def test_tasks_that_cannot_be_evaluated(base):
    refused(base, InputError, "unknown tasks: hellaswog", tasks="mine,hellaswog")
    write_task(base, "writes", output_type="generate_until")
    refused(base, InputError, "writes", "generate_until", tasks="writes")
    write_task(base, "broken", output_type="nonsense")
    refused(base, InputError, "the task broken cannot be loaded", tasks="broken")
    write_task(base, "empty", output_type="loglikelihood", dataset_kwargs={"data_files": "no.json"})
    refused(base, InputError, "the task empty cannot be loaded", "no.json", tasks="empty")


def test_story_cloze_without_its_file(base, capsys):
    name = harness_tasks.STORY_CLOZE
    eight = harness_tasks.chosen("")
    assert name not in eight and len(eight) == 8 and name in capsys.readouterr().out
    refused(base, InputError, name, "STORYCLOZE_DIR", "owners", tasks=name)
    refused(base, InputError, "model", "found 0", tasks=name, storycloze_dir="model")


def test_missing_data_sets_are_all_named_with_one_command(base, tmp_path):
    """At once, by a process of its own: the libraries read HF_HOME when they are loaded."""
    variables = {"HF_HOME": tmp_path / "no data", "HF_ENDPOINT": "http://127.0.0.1:9"}
    run = programs.call(tmp_path, "eval.harness", base, "--model-path", "model", **variables)
    names = "hellaswag,lambada_openai,winogrande,openbookqa,arc_easy,arc_challenge,piqa,social_iqa"
    fix = f"python3 eval/harness.py --prefetch {tmp_path / 'no data'} --tasks {names};"
    programs.one_message(run, 2, "data sets are not here: hellaswag, lambada_openai,", fix)


def copy_of(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base / "model", tmp_path / "model")


def test_a_checkpoint_without_a_tokenizer_of_its_own(base, tmp_path):
    model = copy_of(base, tmp_path)
    table = json.loads((model / "tokenizer.json").read_text())
    table["added_tokens"].append({**table["added_tokens"][0], "id": 600, "content": "<|more|>"})
    (model / "tokenizer.json").write_text(json.dumps(table))
    refused(base, InputError, "larger ids than the model", "601", model_path=str(model))
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    refused(base, InputError, "no tokenizer", str(model), model_path=str(model))


def test_a_half_written_checkpoint(base, tmp_path):
    model = copy_of(base, tmp_path)
    files = [
        {"name": path.name, "size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(model.iterdir())
    ]
    artefact.Manifest(model, "model", 1, {}, {"step": 7}, {}, files, {}, {}).write()
    found = prepare(base, model_path=str(model)).checkpoints[0]
    assert found.step == 7
    assert found.model["weights"] == prepare(base).checkpoints[0].model["weights"]
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused(base, ArtefactError, "checksum", "model.safetensors", model_path=str(model))
    weights.unlink()
    refused(base, ArtefactError, "missing", "model.safetensors", model_path=str(model))
    (model / artefact.MANIFEST).unlink()
    refused(base, InputError, "no weights", model_path=str(model))


def test_checkpoints_that_cannot_be_told_apart_or_are_not_there(base, tmp_path):
    copy_of(base, tmp_path)
    two = f"model,{tmp_path / 'model'}"
    refused(base, InputError, "both be called a-model", model_path=two, ckpt_name="a")
    named = f"model,other={tmp_path / 'model'}"
    found = prepare(base, model_path=named, ckpt_name="a").checkpoints
    assert [c.name for c in found] == ["a-model", "a-other"] and found[0].step is None
    refused(base, InputError, "nowhere", model_path="nowhere")
    refused(base, InputError, "no step_* folders", all_steps=True)


def test_a_finished_run_is_its_last_model_unless_all_steps_are_asked_for(base, tmp_path, capsys):
    run = copy_of(base, tmp_path)
    for step in ("step_000002", "step_000010", "step_000004.tmp"):
        shutil.copytree(base / "model", run / step)
    assert [c.name for c in prepare(base, model_path=str(run)).checkpoints] == ["model"]
    assert "2 step_* folders" in capsys.readouterr().out
    steps = prepare(base, model_path=str(run), ckpt_name="a", all_steps=True).checkpoints
    assert [c.name for c in steps] == ["a-step_000002", "a-step_000010"]
    assert [c.step for c in steps] == [2, 10]


@pytest.mark.parametrize(
    "flags",
    [
        {"model_path": ""},
        {"model_path": "a,b"},
        {"add_bos": "yes"},
        {"limit": -1},
        {"tokens_per_batch": 0},
    ]
    + [{"ckpt_name": name} for name in ("a/b", "..", "-a")],
    ids=str,
)
def test_flags_that_are_wrong(flags, base):
    with pytest.raises(ValueError):
        harness.Settings(base_path=str(base), **{"model_path": "model", **flags})
