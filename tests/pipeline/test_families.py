"""Llama 3.1's launchers with its real tokenizer, through the real engine.

.venv/bin/python -m pytest -m long tests/pipeline/test_families.py
"""

import json

import pytest

from data_utils.corpus import Corpus
from data_utils.program import CODE_ROOT
from tests import make
from tests.pretrain.runs import column

TRAIN = {"GLOBAL_BATCH": 4, "MICRO_BATCH": 2, "TOTAL_STEPS": 4, "WARMUP_STEPS": 1, "SAVE_EVERY": 2}
NAMES = {"MAX_LENGTH": 33, "TOKENIZER_NAME": "bpe", "LOG_EVERY": 1, "MODEL_CONFIG": "model.json"}
CORPUS = "processed_data/pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5"
CONVERT = "scripts/tools/convert_tokenization/convert_tokenization_qwen_llama3_1.sh"


@pytest.mark.long
def test_llama_3_1_with_its_tokenizer_resumes(tmp_path):
    target = make.npm_tokenizer("llama3_1", "<|end_of_text|>")
    base = tmp_path / "base path"
    tokenizer = make.train_tokenizer(base / "tokenizer", make.documents(50))
    make.save_corpus(base / CORPUS / "bpe-33", make.text_rows(tokenizer, 24, 33), tokenizer)
    config = json.loads((CODE_ROOT / "configs/models/llama3.1/212M.json").read_text())
    config.update(hidden_size=32, intermediate_size=64, num_hidden_layers=2)
    config.update(num_attention_heads=2, num_key_value_heads=2)
    (base / "model.json").write_text(json.dumps(config))
    make.run(CONVERT, base, TARGET_TOKENIZER_PATH=target, **NAMES)
    corpus = Corpus(base / CORPUS / "bpe-llama3_1-33")
    assert corpus.row(0)[0] == 128_000 and corpus.eos_id == 128_001
    launcher = "scripts/miniplm/pretraining/llama3.1/212M.sh"
    make.run(launcher, base, **TRAIN, **NAMES, SAVE="whole")
    make.run(launcher, base, **TRAIN, **NAMES, STOP_STEP=2)
    make.run(launcher, base, **TRAIN, **NAMES)
    resumed = base / "results/miniplm/llama3.1/212M"
    assert column(resumed, "loss") == column(base / "whole", "loss")
    weights = [(f / "model.safetensors").read_bytes() for f in (resumed, base / "whole")]
    assert weights[0] == weights[1]
