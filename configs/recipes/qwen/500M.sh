MODEL_CONFIG=${MODEL_CONFIG:-configs/models/qwen/500M.json}
MICRO_BATCH=${MICRO_BATCH:-4}
LR=${LR:-3e-4}
LR_MIN=${LR_MIN:-3e-5}
source "$CODE/configs/recipes/students.sh"
