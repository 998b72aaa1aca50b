#!/usr/bin/env bash
# Convert the selected corpus (or any: DATA_DIR) from the Qwen tokenizer to Llama 3.1's.
#   bash scripts/tools/convert_tokenization/convert_tokenization_qwen_llama3_1.sh BASE_PATH
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$CORPUS_NAME}
TOKENIZER_PATH=${TOKENIZER_PATH:-checkpoints/qwen/1.8B}  # for a corpus without its own tokenizer
TARGET_TOKENIZER_PATH=${TARGET_TOKENIZER_PATH:-checkpoints/llama3.1/212M}
SAVE=${SAVE:-$(dirname "$DATA_DIR")/$TOKENIZER_NAME-llama3_1-$MAX_LENGTH}
ADD_BOS=${ADD_BOS:-true}

convert
