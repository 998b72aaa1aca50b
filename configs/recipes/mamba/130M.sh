# shellcheck shell=bash
MODEL_CONFIG=${MODEL_CONFIG:-configs/models/mamba/130M.json}
MICRO_BATCH=${MICRO_BATCH:-16}
LR=${LR:-2e-3}
LR_MIN=${LR_MIN:-1e-5}
WARMUP_STEPS=${WARMUP_STEPS:-10000}
WEIGHT_DECAY=${WEIGHT_DECAY:-0.1}
BETA2=${BETA2:-0.95}
source "$CODE/configs/recipes/students.sh"
