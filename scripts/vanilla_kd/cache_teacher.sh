#!/usr/bin/env bash
# Store the teacher's distributions over the corpus, for TEACHER_CACHE, and its scores in one pass.
#   bash scripts/vanilla_kd/cache_teacher.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh" "$@"

MODEL_PATH=${MODEL_PATH:-checkpoints/qwen/1.8B}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/scores/$DATA_NAME/$CORPUS_NAME/$TEACHER_NAME}
SHARDS=${SCORE_SHARDS:-0:200}

KD_CACHE=true
score
