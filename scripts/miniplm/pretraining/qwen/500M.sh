#!/usr/bin/env bash
# MiniPLM: pre-train the 500M Qwen student on the refined corpus.
#   bash scripts/miniplm/pretraining/qwen/500M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../../common.sh" "$@"

MODEL_CONFIG=${MODEL_CONFIG:-configs/models/qwen/500M.json}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/miniplm/qwen/500M}
GLOBAL_BATCH=${GLOBAL_BATCH:-512}
MICRO_BATCH=${MICRO_BATCH:-4}
LR=${LR:-3e-4}
LR_MIN=${LR_MIN:-3e-5}
WARMUP_STEPS=${WARMUP_STEPS:-2000}
TOTAL_STEPS=${TOTAL_STEPS:-100000}
SAVE_EVERY=${SAVE_EVERY:-5000}

train
