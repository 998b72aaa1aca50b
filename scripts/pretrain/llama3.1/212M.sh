#!/usr/bin/env bash
# Conventional pre-training: the 212M Llama 3.1 student on the full corpus in its own tokens.
#   bash scripts/pretrain/llama3.1/212M.sh BASE_PATH [--flag value ...]
# The corpus: DATA_DIR=processed_data/pretrain/pile/qwen-1025 with
#   bash scripts/tools/convert_tokenization/convert_tokenization_qwen_llama3_1.sh BASE_PATH
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/llama3.1/212M.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$TOKENIZER_NAME-llama3_1-$MAX_LENGTH}
SAVE=${SAVE:-results/pretrain/llama3.1/212M}

train
