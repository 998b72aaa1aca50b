#!/usr/bin/env bash
# MiniLLM: train the pre-trained 1.2B Qwen student on its own continuations, with the teacher online.
#   bash scripts/minillm/qwen/1.2B.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/minillm_1.2B.sh"

MODEL_PATH=${MODEL_PATH:-results/pretrain/qwen/1.2B}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/minillm/qwen/1.2B}

minillm
