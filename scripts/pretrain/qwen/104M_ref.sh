#!/usr/bin/env bash
# The reference model, trained on 5 B tokens that are never scored.
#   bash scripts/pretrain/qwen/104M_ref.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/104M_ref.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/${DATA_NAME}_ref/$CORPUS_NAME}
SAVE=${SAVE:-checkpoints/qwen/104M_ref}

train
