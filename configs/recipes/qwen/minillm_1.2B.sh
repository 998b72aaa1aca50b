# With rollouts: as many steps as cost the FLOPs of 100,000 without a teacher (the paper, which
# names no other learning rate than that of the size).
MICRO_BATCH=${MICRO_BATCH:-1}
TOTAL_STEPS=${TOTAL_STEPS:-40000}
SAVE_EVERY=${SAVE_EVERY:-1000}
source "$CODE/configs/recipes/qwen/1.2B.sh"
