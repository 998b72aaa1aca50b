#!/usr/bin/env bash
# The proxy: the reference learns to predict r of rows that teacher and reference have scored.
#   bash scripts/miniplm/proxy/train.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/104M_proxy.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/${DATA_NAME}_proxy/$CORPUS_NAME}
SAVE=${SAVE:-checkpoints/qwen/104M_proxy}
LABELS=${LABELS:-results/scores/$DATA_NAME/$CORPUS_NAME/diff-$TEACHER_NAME-$REF_NAME}

regress
