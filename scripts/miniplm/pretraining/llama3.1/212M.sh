#!/usr/bin/env bash
# MiniPLM: pre-train the 212M Llama 3.1 student on the refined corpus in its own tokens.
#   bash scripts/miniplm/pretraining/llama3.1/212M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../../common.sh" "$@"
source "$CODE/configs/recipes/llama3.1/212M.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$TOKENIZER_NAME-llama3_1-$MAX_LENGTH}
SAVE=${SAVE:-results/miniplm/llama3.1/212M}

train
