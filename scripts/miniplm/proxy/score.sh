#!/usr/bin/env bash
# Score the corpus with the proxy. Any number of these, on any machines, share the work.
#   bash scripts/miniplm/proxy/score.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"

MODEL_PATH=${MODEL_PATH:-checkpoints/qwen/104M_proxy}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/scores/$DATA_NAME/$CORPUS_NAME/proxy-$TEACHER_NAME-$REF_NAME}
SHARDS=${SCORE_SHARDS:-0:200}

score miniplm/proxy.py
