#!/usr/bin/env bash
# Conventional pre-training: the 130M Mamba student on the full corpus in its own tokens.
#   bash scripts/pretrain/mamba/130M.sh BASE_PATH [--flag value ...]
# The corpus: DATA_DIR=processed_data/pretrain/pile/qwen-1025 with
#   bash scripts/tools/convert_tokenization/convert_tokenization_qwen_mamba.sh BASE_PATH
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/mamba/130M.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$TOKENIZER_NAME-mamba-$MAX_LENGTH}
SAVE=${SAVE:-results/pretrain/mamba/130M}

train
