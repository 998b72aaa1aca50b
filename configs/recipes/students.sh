# What all students of the paper share (arXiv 2410.17215; 8 GPUs). The recipes of this folder source
# it last: a value that the user, the method's launcher or the recipe has set stays.
GLOBAL_BATCH=${GLOBAL_BATCH:-512}
WARMUP_STEPS=${WARMUP_STEPS:-2000}
TOTAL_STEPS=${TOTAL_STEPS:-100000}
SAVE_EVERY=${SAVE_EVERY:-5000}
