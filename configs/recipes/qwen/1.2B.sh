MODEL_CONFIG=${MODEL_CONFIG:-configs/models/qwen/1.2B.json}
MICRO_BATCH=${MICRO_BATCH:-4}
LR=${LR:-2.5e-4}
LR_MIN=${LR_MIN:-2.5e-5}
source "$CODE/configs/recipes/students.sh"
