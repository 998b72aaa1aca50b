#!/usr/bin/env bash
# Score the corpus with the teacher model. Any number of these, on any machines, share the work.
#   bash scripts/miniplm/difference_sampling/1.8B.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"

MODEL_PATH=${MODEL_PATH:-checkpoints/qwen/1.8B}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/scores/$DATA_NAME/$CORPUS_NAME/$TEACHER_NAME}
SHARDS=${SCORE_SHARDS:-0:200}

score
