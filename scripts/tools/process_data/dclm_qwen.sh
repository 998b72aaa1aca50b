#!/usr/bin/env bash
# Tokenize held-out text (DCLM or any other) with the Qwen tokenizer: the set of the LM evaluation.
#   bash scripts/tools/process_data/dclm_qwen.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"

TOKENIZER_PATH=${TOKENIZER_PATH:-checkpoints/qwen/1.8B}
TEXT=${TEXT:-data/dclm}
SAVE=${SAVE:-processed_data/dclm/$CORPUS_NAME}
SHARD_SIZE=${SHARD_SIZE:-1000000}
SPLIT=${SPLIT:-test}
SOURCE=${SOURCE:-dclm}  # of documents that do not name one

DATA_DIR=$TEXT tokenize
