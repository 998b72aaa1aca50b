#!/usr/bin/env bash
# The reference model: 5 B tokens that are never scored (its numbers were not published; ours).
#   bash scripts/pretrain/qwen/104M_ref.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"

MODEL_CONFIG=${MODEL_CONFIG:-configs/models/qwen/104M_ref.json}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/${DATA_NAME}_ref/$CORPUS_NAME}
SAVE=${SAVE:-checkpoints/qwen/104M_ref}
GLOBAL_BATCH=${GLOBAL_BATCH:-512}
MICRO_BATCH=${MICRO_BATCH:-8}
LR=${LR:-6e-4}
LR_MIN=${LR_MIN:-6e-5}
WARMUP_STEPS=${WARMUP_STEPS:-2000}
TOTAL_STEPS=${TOTAL_STEPS:-9500}
SAVE_EVERY=${SAVE_EVERY:-5000}

train
