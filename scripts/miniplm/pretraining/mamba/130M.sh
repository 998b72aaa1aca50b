#!/usr/bin/env bash
# MiniPLM: pre-train the 130M Mamba student on the refined corpus in its own tokens.
#   bash scripts/miniplm/pretraining/mamba/130M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../../common.sh" "$@"

MODEL_CONFIG=${MODEL_CONFIG:-configs/models/mamba/130M.json}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$TOKENIZER_NAME-mamba-$MAX_LENGTH}
SAVE=${SAVE:-results/miniplm/mamba/130M}
GLOBAL_BATCH=${GLOBAL_BATCH:-512}
MICRO_BATCH=${MICRO_BATCH:-16}
LR=${LR:-2e-3}
LR_MIN=${LR_MIN:-1e-5}
WARMUP_STEPS=${WARMUP_STEPS:-10000}
TOTAL_STEPS=${TOTAL_STEPS:-100000}
SAVE_EVERY=${SAVE_EVERY:-5000}
WEIGHT_DECAY=${WEIGHT_DECAY:-0.1}
BETA2=${BETA2:-0.95}

train
