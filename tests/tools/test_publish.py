"""tools/publish.py of models: a clean folder with weights, card and evaluation results."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from data_utils.artefact_writer import Output
from data_utils.atomic_files import sha256
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from tests import make
from tests.eval.test_compare import save_losses
from tools import publish

SAVE = "results/miniplm/qwen/200M"


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    """BASE PATH with a model trained on a selected corpus, its checkpoint's states and figures."""
    base = tmp_path_factory.mktemp("a base")
    rows = make.random_rows(20, 600, 0)
    source = make.save_corpus(base / "pile/qwen-65", rows, tokenizer_folder)
    for name, means in (("T", -7.0), ("R", -8.0)):
        make.save_scores(base / "scores" / name, source, name, np.full(20, means) * 5, [5] * 20)
    words = ["--scores", "scores", "--teacher-name", "T", "--ref-name", "R"]
    sampling = "scripts/miniplm/difference_sampling"
    make.run(f"{sampling}/compute_difference_scores.py", base, *words)
    words += ["--data-dir", "pile/qwen-65", "--save", "selected/qwen-65"]
    make.run(f"{sampling}/construct_pretrain_data.py", base, *words)
    selected = Corpus(base / "selected/qwen-65")
    folder = base / SAVE
    output = Output(
        folder,
        "model",
        "tests",
        {"objective": "language_modelling"},
        {},
        {"corpus": (selected.folder, selected.identity)},
    ).begin()
    make.save_model(base / "made", make.qwen_config(600), 0, tokenizer_folder)
    for path in (base / "made").iterdir():
        path.rename(folder / path.name)
    (folder / "trainer_state.json").write_text("{}")
    (folder / "deepspeed").mkdir()
    (folder / "deepspeed/state.pt").write_text("x")
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    names = [name for name in names if name not in ("settings.json", ".lock")]
    counts = {"step": 7, "sequences": 56, "tokens": 1234, "parameters": 45_000}
    counts |= {"student_flops": 3e9, "teacher_flops": 0.0}
    manifest = output.finish(names, counts)
    save_losses(base, "refined", np.full(9, 6.5), manifest.fingerprint)
    save_losses(base, "another", np.full(9, 1.5), "0" * 64)
    save_tasks(base, sha256(folder / "model.safetensors"))
    return base


def save_tasks(base: Path, weights: str) -> None:
    """The files of eval/harness.py."""
    folder = base / "results/eval/harness"
    folder.mkdir(parents=True)
    figures = {"value": 0.4125, "stderr": 0.01, "metric": "acc_norm"}
    result = {"name": "tasks", "model": {"weights": weights}, "tasks": {"piqa": figures}}
    result |= {"settings": {"lm_eval": "0.4.13"}, "average": {"value": 0.4125, "stderr": 0.01}}
    (folder / "tasks.json").write_text(json.dumps(result))
    theirs = {"configs": {"piqa": {"dataset_path": "baber/piqa"}}}
    (folder / "tasks.lm_eval.json").write_text(json.dumps(theirs))


def test_a_model_s_folder_is_clean_and_opens(base, tmp_path):
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    target = tmp_path / "to give"
    make.run("tools/publish.py", base / SAVE, "--to", target)
    names = {path.name for path in target.iterdir()}
    assert names >= {"model.safetensors", "config.json", "tokenizer.json", "README.md"}
    assert not names & {"manifest.json", "settings.json", "trainer_state.json", "deepspeed"}
    ours = AutoModelForCausalLM.from_pretrained(base / SAVE)
    theirs = AutoModelForCausalLM.from_pretrained(target)
    for mine, given in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, given)
    assert PreTrainedTokenizerFast.from_pretrained(target)("text")["input_ids"]
    (entry,) = yaml.safe_load((target / ".eval_results/zero_shot.yaml").read_text())
    assert entry["dataset"] == {"id": "baber/piqa", "task_id": "piqa"}
    assert entry["value"] == 41.25 and "acc_norm" in entry["notes"]


def test_its_card_says_where_it_comes_from(base, tmp_path):
    publish.publish_model(base / SAVE, tmp_path / "given")
    text = (tmp_path / "given/README.md").read_text()
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["library_name"] == "transformers"
    for words in (
        "| selected by | difference, alpha 0.5 |",
        "| corpus | selected/qwen-65 |",
        "| tokens | 1,234 |",
        "| FLOPs of the student | 3.00e+09 |",
        "6.5000",
        "| piqa | acc_norm | 41.25 ± 1.00 |",
    ):
        assert words in text, words
    assert "1.5000" not in text  # of another model


def test_what_cannot_be_published_is_refused(base, tmp_path, monkeypatch):
    def refused(folder: Path, *words: str) -> str:
        command = ["program", str(folder), "--to", str(tmp_path / "x"), *words]
        monkeypatch.setattr("sys.argv", command)
        with pytest.raises((InputError, ArtefactError)) as caught:
            publish.main()
        return str(caught.value)

    assert "no finished model or corpus" in refused(tmp_path)
    assert "not selected here" in refused(base / "pile/qwen-65")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "hf auth login" in refused(base / SAVE, "--upload", "me/model")
    assert (tmp_path / "x/README.md").exists()
    assert "not empty" in refused(base / SAVE)
    weights = base / SAVE / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    monkeypatch.setattr("sys.argv", ["program", str(base / SAVE), "--to", str(tmp_path / "y")])
    with pytest.raises(ArtefactError, match="model.safetensors"):
        publish.main()
    weights.write_bytes(content)
    assert not (tmp_path / "y").exists()
