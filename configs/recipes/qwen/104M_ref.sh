# The reference: LR is the paper's; it does not give the other numbers, which are ours.
MODEL_CONFIG=${MODEL_CONFIG:-configs/models/qwen/104M_ref.json}
MICRO_BATCH=${MICRO_BATCH:-8}
LR=${LR:-6e-4}
LR_MIN=${LR_MIN:-6e-5}
TOTAL_STEPS=${TOTAL_STEPS:-9500}  # 5 B tokens
source "$CODE/configs/recipes/students.sh"
