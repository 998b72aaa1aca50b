#!/usr/bin/env bash
# Tokenize the Pile with the Qwen tokenizer into sequences of 1,025 tokens.
#   bash scripts/tools/process_data/pile_qwen.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"

TOKENIZER_PATH=${TOKENIZER_PATH:-checkpoints/qwen/1.8B}
TEXT=${TEXT:-data/pile/train}
SAVE=${SAVE:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SHARD_SIZE=${SHARD_SIZE:-1000000}

DATA_DIR=$TEXT tokenize
