#!/usr/bin/env bash
# MiniPLM: pre-train the 1.2B Qwen student on the refined corpus.
#   bash scripts/miniplm/pretraining/qwen/1.2B.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/1.2B.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/miniplm/qwen/1.2B}

train
