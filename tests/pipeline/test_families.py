"""The launchers of other families, from conversion to resume, through the real engine.

.venv/bin/python -m pytest -m long tests/pipeline/test_families.py
"""

import json
from pathlib import Path

import pytest

from data_utils.corpus import Corpus
from data_utils.program import CODE_ROOT
from tests import make
from tests.pretrain.runs import column

TRAIN = {"GLOBAL_BATCH": 4, "MICRO_BATCH": 2, "TOTAL_STEPS": 4, "WARMUP_STEPS": 1, "SAVE_EVERY": 2}
NAMES = {"MAX_LENGTH": 33, "TOKENIZER_NAME": "bpe", "LOG_EVERY": 1, "MODEL_CONFIG": "model.json"}
CORPUS = "processed_data/pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2}
LLAMA = {"intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
MAMBA = {"state_size": 4, "time_step_rank": 2, "intermediate_size": 64}


def prepare(base: Path, family: str, target: Path, model: str, sizes: dict) -> Corpus:
    """A selected corpus converted by the family's launcher, and a small configuration."""
    tokenizer = make.train_tokenizer(base / "tokenizer", make.documents(50))
    make.save_corpus(base / CORPUS / "bpe-33", make.text_rows(tokenizer, 24, 33), tokenizer)
    config = json.loads((CODE_ROOT / f"configs/models/{model}.json").read_text())
    (base / "model.json").write_text(json.dumps({**config, **SMALL, **sizes}))
    convert = f"scripts/tools/convert_tokenization/convert_tokenization_qwen_{family}.sh"
    make.run(convert, base, TARGET_TOKENIZER_PATH=target, **NAMES)
    return Corpus(base / CORPUS / f"bpe-{family}-33")


def resumes(base: Path, model: str) -> None:
    """Trained with a stop and a resume, losses and weights are those of a run without."""
    launcher = f"scripts/miniplm/pretraining/{model}.sh"
    make.run(launcher, base, **TRAIN, **NAMES, SAVE="whole")
    make.run(launcher, base, **TRAIN, **NAMES, STOP_STEP=2)
    make.run(launcher, base, **TRAIN, **NAMES)
    resumed = base / "results/miniplm" / model
    assert column(resumed, "loss") == column(base / "whole", "loss")
    weights = [(f / "model.safetensors").read_bytes() for f in (resumed, base / "whole")]
    assert weights[0] == weights[1]


@pytest.mark.long
def test_llama_3_1_with_its_tokenizer_resumes(tmp_path):
    base, target = tmp_path / "base path", make.npm_tokenizer("llama3_1", "<|end_of_text|>")
    corpus = prepare(base, "llama3_1", target, "llama3.1/212M", LLAMA)
    assert corpus.row(0)[0] == 128_000 and corpus.eos_id == 128_001
    resumes(base, "llama3.1/212M")


@pytest.mark.long
def test_mamba_resumes(tmp_path):
    """With a tokenizer of the test's own: GPT-NeoX's is on the hub alone."""
    base = tmp_path / "base path"
    target = make.train_tokenizer(base / "other", make.documents(60, seed=5), 500)
    corpus = prepare(base, "mamba", target, "mamba/130M", MAMBA)
    assert corpus.carried()["add_bos"] is False
    resumes(base, "mamba/130M")
