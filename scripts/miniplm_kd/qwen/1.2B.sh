#!/usr/bin/env bash
# MiniPLM and vanilla KD: the 1.2B Qwen student on the refined corpus, teacher online.
#   bash scripts/miniplm_kd/qwen/1.2B.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh" "$@"
source "$CODE/configs/recipes/qwen/kd_1.2B.sh"

DATA_DIR=${DATA_DIR:-processed_data/pretrain/$SELECTED_NAME/$CORPUS_NAME}
SAVE=${SAVE:-results/miniplm_kd/qwen/1.2B}

distill
