#!/usr/bin/env bash
# MiniPLM: pre-train the 130M Mamba student on the refined corpus in its own tokens.
#   bash scripts/miniplm/pretraining/mamba/130M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../../common.sh" "$@"
source "$CODE/configs/recipes/mamba/130M.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$TOKENIZER_NAME-mamba-$MAX_LENGTH}
SAVE=${SAVE:-results/miniplm/mamba/130M}

train
