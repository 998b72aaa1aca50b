#!/usr/bin/env bash
# Vanilla KD: pre-train the 500M Qwen student on the full corpus with the teacher online.
#   bash scripts/vanilla_kd/qwen/500M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/kd_500M.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$DATA_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/vanilla_kd/qwen/500M}

distill
