# With a teacher online: as many steps as cost the FLOPs of 100,000 without one (the paper).
MICRO_BATCH=${MICRO_BATCH:-4}
TOTAL_STEPS=${TOTAL_STEPS:-25000}
SAVE_EVERY=${SAVE_EVERY:-1000}
source "$CODE/configs/recipes/qwen/200M.sh"
