# With rollouts: as many steps as cost the FLOPs of 100,000 without a teacher (the paper, which
# names no other learning rate than that of the size).
MICRO_BATCH=${MICRO_BATCH:-2}
TOTAL_STEPS=${TOTAL_STEPS:-30000}
SAVE_EVERY=${SAVE_EVERY:-1000}
source "$CODE/configs/recipes/qwen/500M.sh"
