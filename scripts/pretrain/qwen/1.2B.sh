#!/usr/bin/env bash
# Conventional pre-training: the 1.2B Qwen student on the full corpus.
#   bash scripts/pretrain/qwen/1.2B.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/1.2B.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/pretrain/qwen/1.2B}

train
