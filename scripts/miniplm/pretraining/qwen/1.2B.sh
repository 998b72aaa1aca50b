#!/usr/bin/env bash
# MiniPLM: pre-train the 1.2B Qwen student on the refined corpus.
#   bash scripts/miniplm/pretraining/qwen/1.2B.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../../common.sh" "$@"

MODEL_CONFIG=${MODEL_CONFIG:-configs/models/qwen/1.2B.json}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/miniplm/qwen/1.2B}
GLOBAL_BATCH=${GLOBAL_BATCH:-512}
MICRO_BATCH=${MICRO_BATCH:-4}
LR=${LR:-2.5e-4}
LR_MIN=${LR_MIN:-2.5e-5}
WARMUP_STEPS=${WARMUP_STEPS:-2000}
TOTAL_STEPS=${TOTAL_STEPS:-100000}
SAVE_EVERY=${SAVE_EVERY:-5000}

train
