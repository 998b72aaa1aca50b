# The proxy begins as the reference. The paper does not publish its numbers: these are ours.
MODEL_PATH=${MODEL_PATH:-checkpoints/qwen/104M_ref}
MICRO_BATCH=${MICRO_BATCH:-8}
LR=${LR:-1e-4}
LR_MIN=${LR_MIN:-1e-5}
WARMUP_STEPS=${WARMUP_STEPS:-200}
TOTAL_STEPS=${TOTAL_STEPS:-5000}  # 2.6 million rows of the three shards
SAVE_EVERY=${SAVE_EVERY:-1000}
source "$CODE/configs/recipes/students.sh"
