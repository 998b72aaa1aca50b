#!/usr/bin/env bash
# Conventional pre-training: the 300M Qwen student on the full corpus.
#   bash scripts/pretrain/qwen/300M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/300M.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/pretrain/qwen/300M}

train
