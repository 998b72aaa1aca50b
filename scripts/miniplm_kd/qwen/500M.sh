#!/usr/bin/env bash
# MiniPLM and vanilla KD: the 500M Qwen student on the refined corpus, teacher online.
#   bash scripts/miniplm_kd/qwen/500M.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/kd_500M.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/miniplm_kd/qwen/500M}

distill
