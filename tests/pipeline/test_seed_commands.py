"""The original README's commands, verbatim, with the real Qwen tokenizer and vocabulary.

.venv/bin/python -m pytest -m long tests/pipeline/test_seed_commands.py

A tiny random model of vocabulary 151,936 stands in for the teacher's and the reference's weights;
the 200M launchers train their real configuration for two steps.
"""

import json
import os
import shutil

import pytest

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.program import CODE_ROOT
from tests import make
from tests.eval import harness_data, harness_world

SMALL = {"GLOBAL_BATCH": 2, "MICRO_BATCH": 1, "TOTAL_STEPS": 2, "WARMUP_STEPS": 1}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_commands_of_the_original_readme(tmp_path):
    base = tmp_path / "a base path"
    make.write_text(base / "data/pile/train", make.documents(300), ("Pile-CC", "Github", "ArXiv"))
    make.write_text(base / "data/held_out", make.documents(60, seed=5), ("DCLM",))
    tokenizer = make.npm_tokenizer("qwen3", "<|endoftext|>")
    config = json.loads((CODE_ROOT / "configs/models/qwen/tiny.json").read_text())
    config.update(vocab_size=151_936, eos_token_id=151_643, pad_token_id=151_643)
    for size, seed in (("1.8B", 1), ("104M_ref", 2)):
        folder = make.save_model(base / "checkpoints/qwen" / size, config, seed)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer / name, folder / name)
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        commands(base)
    finally:
        os.chdir(here)
    check(base)


def commands(base) -> None:
    """Typed as in the README; only the sizes are smaller."""
    tokenise = "scripts/tools/process_data/pile_qwen.sh"
    make.run(tokenise, base, SHARD_SIZE=40)
    held_out = {"TEXT": "data/held_out", "SAVE": "processed_data/dclm/qwen-1025"}
    make.run(tokenise, base, "--split", "test", **held_out)
    sampling = "scripts/miniplm/difference_sampling"
    make.run(f"{sampling}/1.8B.sh", base, SCORE_SHARDS="0:1")
    make.run(f"{sampling}/104M.sh", base, SCORE_SHARDS="0:1")
    make.run(f"{sampling}/compute_difference_scores.py", base)
    make.run(f"{sampling}/construct_pretrain_data.py", base)
    make.run("scripts/miniplm/pretraining/qwen/200M.sh", base, **SMALL)
    make.run("scripts/pretrain/qwen/200M.sh", base, **SMALL)
    for name in ("miniplm", "pretrain"):
        trained = f"results/{name}/qwen/200M"
        make.run("scripts/eval/lm.sh", base, "--model-path", trained, "--ckpt-name", name)
    data = {"HF_HOME": harness_world.prefetch(base), "STORYCLOZE_DIR": base / "story cloze"}
    harness_data.save_story_cloze(base / "story cloze")
    flags = ["--model-path", trained, "--ckpt-name", "NAME_OF_CKPT"]
    make.run("scripts/eval/harness.sh", base, *flags, **data)


def check(base) -> None:
    """Everything is in its place and belongs together."""
    refined = "pile-diff_samp-qwen_1.8B-qwen_104M-r0.5/qwen-1025"
    corpus = Corpus(base / "processed_data/pretrain" / refined)
    assert len(corpus) == 20 and corpus.max_length == 1025
    for method in ("miniplm", "pretrain"):
        model = base / "results" / method / "qwen/200M"
        assert artefact.require(model, "model", "", contents=True).counts["step"] == 2
        assert json.loads((model / "config.json").read_text())["hidden_size"] == 768
        result = json.loads((base / f"results/eval/lm/{method}.json").read_text())
        assert 11 < result["loss"] < 13  # ln 151,936 is 11.93
    accuracies = json.loads((base / "results/eval/harness/NAME_OF_CKPT.json").read_text())
    assert accuracies["average"]["tasks"] == 9
