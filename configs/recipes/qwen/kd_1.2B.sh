# With a teacher online: as many steps as cost the FLOPs of 100,000 without one (the paper).
MICRO_BATCH=${MICRO_BATCH:-2}
TOTAL_STEPS=${TOTAL_STEPS:-65000}
SAVE_EVERY=${SAVE_EVERY:-1000}
source "$CODE/configs/recipes/qwen/1.2B.sh"
