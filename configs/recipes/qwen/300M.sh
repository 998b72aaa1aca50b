# LR is the paper's; its LR_MIN and micro-batch are ours, as for the sizes beside it.
MODEL_CONFIG=${MODEL_CONFIG:-configs/models/qwen/300M.json}
MICRO_BATCH=${MICRO_BATCH:-8}
LR=${LR:-6e-4}
LR_MIN=${LR_MIN:-6e-5}
source "$CODE/configs/recipes/students.sh"
