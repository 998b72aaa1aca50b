#!/usr/bin/env bash
# MiniPLM: pre-train the 300M Qwen student on the refined corpus.
#   bash scripts/miniplm/pretraining/qwen/300M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/300M.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/miniplm/qwen/300M}

train
