MODEL_CONFIG=${MODEL_CONFIG:-configs/models/qwen/200M.json}
MICRO_BATCH=${MICRO_BATCH:-8}
LR=${LR:-6e-4}
LR_MIN=${LR_MIN:-6e-5}
source "$CODE/configs/recipes/students.sh"
