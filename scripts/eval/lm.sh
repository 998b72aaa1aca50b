#!/usr/bin/env bash
# Language-modelling loss of a model on a held-out corpus.
#   bash scripts/eval/lm.sh BASE_PATH --model-path TRAINED_CKPT --ckpt-name NAME [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh" "$@"

DATA_DIR=${DATA_DIR:-processed_data/dclm/$CORPUS_NAME}
SPLIT=${SPLIT:-test}

PROCESSES=$(processes)
launch eval/lm.py MODEL_PATH CKPT_NAME DATA_DIR SPLIT TOKENIZER_PATH SAVE LIMIT TOKENS_PER_BATCH \
  PRECISION ATTENTION DIST_TIMEOUT
