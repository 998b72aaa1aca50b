#!/usr/bin/env bash
# MiniLLM: train the pre-trained 500M Qwen student on its own continuations, with the teacher online.
#   bash scripts/minillm/qwen/500M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/minillm_500M.sh"

MODEL_PATH=${MODEL_PATH:-results/pretrain/qwen/500M}
DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/minillm/qwen/500M}

minillm
