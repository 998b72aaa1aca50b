#!/usr/bin/env bash
# Scaling laws of trained runs: held-out loss over compute, and what one method saves over another.
#   bash scripts/eval/scaling_law.sh BASE_PATH [--flag value ...]
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh" "$@"

launch eval/scaling_law.py RUNS CONTROL FROM_STEP SAVE
