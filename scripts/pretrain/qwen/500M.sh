#!/usr/bin/env bash
# Conventional pre-training: the 500M Qwen student on the full corpus.
#   bash scripts/pretrain/qwen/500M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/500M.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/pretrain/qwen/500M}

train
