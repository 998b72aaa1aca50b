#!/usr/bin/env bash
# SeqKD: the teacher continues the corpus's rows; scripts/seqkd/qwen trains on the result.
#   bash scripts/seqkd/generate.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh" "$@"

MODEL_PATH=${MODEL_PATH:-checkpoints/qwen/1.8B}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-processed_data/pretrain/$DATA_NAME-$TEACHER_NAME-gen/$CORPUS_NAME}
CONTINUATIONS=${CONTINUATIONS:-results/continuations/$DATA_NAME/$CORPUS_NAME/$TEACHER_NAME}
SHARDS=${SCORE_SHARDS:-0:52}

PROCESSES=$(processes)
launch baselines/generate.py MODEL_PATH DATA_DIR TOKENIZER_PATH SAVE CONTINUATIONS SHARDS \
  PROMPT_LENGTH TEMPERATURE TOP_P SEED BLOCK_SIZE TOKENS_PER_BATCH SHARD_SIZE PRECISION \
  ATTENTION COMPILE ALLOW_REFERENCE_DATA
