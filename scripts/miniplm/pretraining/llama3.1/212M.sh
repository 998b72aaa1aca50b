#!/usr/bin/env bash
# MiniPLM: pre-train the 212M Llama 3.1 student on the refined corpus in its own tokens.
#   bash scripts/miniplm/pretraining/llama3.1/212M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../../common.sh" "$@"

MODEL_CONFIG=${MODEL_CONFIG:-configs/models/llama3.1/212M.json}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$TOKENIZER_NAME-llama3_1-$MAX_LENGTH}
SAVE=${SAVE:-results/miniplm/llama3.1/212M}
GLOBAL_BATCH=${GLOBAL_BATCH:-512}
MICRO_BATCH=${MICRO_BATCH:-8}
LR=${LR:-6e-4}
LR_MIN=${LR_MIN:-6e-5}
WARMUP_STEPS=${WARMUP_STEPS:-2000}
TOTAL_STEPS=${TOTAL_STEPS:-100000}
SAVE_EVERY=${SAVE_EVERY:-5000}

train
