#!/usr/bin/env bash
# The paper's nine zero-shot tasks with lm-eval: accuracies of one checkpoint or several.
#   bash scripts/eval/harness.sh BASE_PATH --model-path TRAINED_CKPT --ckpt-name NAME [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh" "$@"

export TQDM_DISABLE=1 # lm-eval's bars: ours stays
PROCESSES=$(processes)
launch eval/harness.py MODEL_PATH CKPT_NAME TASKS LIMIT ALL_STEPS ADD_BOS SAVE TOKENS_PER_BATCH \
  PRECISION ATTENTION STORYCLOZE_DIR PREFETCH DIST_TIMEOUT
