#!/usr/bin/env bash
# SeqKD: pre-train the 1.2B Qwen student on the corpus that scripts/seqkd/generate.sh makes.
#   bash scripts/seqkd/qwen/1.2B.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/1.2B.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME-$TEACHER_NAME-gen/$CORPUS_NAME}
SAVE=${SAVE:-results/seqkd/qwen/1.2B}

train
