# What all launchers share. A launcher sources this file with its own arguments, sets its variables
# and calls `launch PROGRAM VARIABLE ...` or a function that does: the variables become flags, and
# the user's own flags come last.
set -euo pipefail

CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BASE_PATH=$CODE
if (($# > 0)) && [[ $1 != -* ]]; then
  BASE_PATH=$1
  shift
fi
USER_FLAGS=("$@")

PYTHON=${PYTHON:-${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}}
if [[ -z $PYTHON && -x $CODE/.venv/bin/python ]]; then PYTHON=$CODE/.venv/bin/python; fi
PYTHON=${PYTHON:-python3}

# Parts of the folders' names.
DATA_NAME=${DATA_NAME:-pile}
TOKENIZER_NAME=${TOKENIZER_NAME:-qwen}
MAX_LENGTH=${MAX_LENGTH:-1025}
TEACHER_NAME=${TEACHER_NAME:-qwen_1.8B}
REF_NAME=${REF_NAME:-qwen_104M}
RATIO=${RATIO:-0.5}
refuse() { # MESSAGE FIX
  echo "ERROR $1. Fix: $2" >&2
  exit 2
}
: "${CRITERION:=difference}" "${BAND:=middle}" "${TAU:=1}" "${SCORE_FILE:=}"
for variable in DATA_NAME TOKENIZER_NAME TEACHER_NAME REF_NAME CRITERION BAND; do
  [[ ${!variable} != [.-]* && ${!variable} != *[/[:cntrl:]]* ]] ||
    refuse "$variable must not contain / or start with . or -: folders are named after it" \
      "e.g. $variable=qwen_1.8B"
done
[[ $MAX_LENGTH =~ ^[1-9][0-9]*$ ]] ||
  refuse "MAX_LENGTH must be a number of tokens, not $MAX_LENGTH" "e.g. MAX_LENGTH=1025"
# One folder per ratio, however it is written: named as the selection does, by Python's {ratio:g}.
[[ $RATIO =~ ^[0-9.]+([eE][+-]?[0-9]{1,2})?$ ]] &&
  RATIO=$(LC_ALL=C && printf '%g' "$RATIO" 2> /dev/null) &&
  [[ $RATIO =~ ^(1|0\.[0-9]+|[1-9](\.[0-9]+)?e-[0-9]+)$ ]] ||
  refuse "RATIO must be above 0 and at most 1, not $RATIO" "e.g. RATIO=0.5"
CORPUS_NAME=$TOKENIZER_NAME-$MAX_LENGTH
# The criterion's part of the name, with its settings (miniplm/criteria.py).
SAMPLED=${CRITERION}_samp-$TEACHER_NAME-$REF_NAME
case $CRITERION in
  difference) SAMPLED=diff_samp-$TEACHER_NAME-$REF_NAME ;;
  reference_band) SAMPLED+=-$BAND ;;
  temperature)
    [[ $TAU =~ ^[0-9.]+([eE][+-]?[0-9]{1,2})?$ ]] &&
      TAU=$(LC_ALL=C && printf '%g' "$TAU" 2> /dev/null) && [[ $TAU != 0 ]] ||
      refuse "TAU must be above 0, not $TAU" "e.g. TAU=0.5"
    SAMPLED+=-tau$TAU
    ;;
  prior | external)
    SAMPLED=${CRITERION}_samp
    if [[ ${SCORE_SHARDS:-0:200} != 0:200 ]]; then SAMPLED+=-shards${SCORE_SHARDS/:/_}; fi
    if [[ $CRITERION == external ]]; then SAMPLED+=-${SCORE_FILE##*/}; fi
    ;;
esac
SELECTED_NAME=$DATA_NAME-$SAMPLED-r$RATIO

# Processes on this machine: NPROC, else one per GPU that torch sees, else one. Torch takes seconds
# to import, so it is asked only where there may be several GPUs.
processes() {
  local visible=${CUDA_VISIBLE_DEVICES-all} gpus=1
  if [[ -z ${NPROC:-} && ($visible == all || $visible == *,*) ]] && may_have_gpus; then
    gpus=$("$PYTHON" -c 'import torch; print("GPUs", torch.cuda.device_count())' | tail -n 1)
    if [[ ! $gpus =~ ^GPUs\ [0-9]+$ ]]; then
      echo "ERROR $PYTHON cannot count the GPUs with torch. Fix: set NPROC, or see install.sh" >&2
      exit 4
    fi
    gpus=${gpus#GPUs }
  fi
  echo "${NPROC:-$((gpus > 1 ? gpus : 1))}"
}
may_have_gpus() {
  command -v nvidia-smi > /dev/null || compgen -G '/dev/nvidia[0-9]*' > /dev/null ||
    [[ -e /dev/kfd || -e /dev/dxg ]]
}

# Threads that wait for each other spin otherwise, which wastes a core that other work could use.
if ! may_have_gpus; then export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}; fi

# as_flags VARIABLE ...: FLAGS becomes --variable "$VARIABLE" for each that is not empty.
as_flags() {
  local variable flag LC_ALL=C # in Turkish a lower-case I has no dot
  FLAGS=()
  for variable in "$@"; do
    flag=${variable,,}
    if [[ -n ${!variable:-} ]]; then FLAGS+=("--${flag//_/-}" "${!variable}"); fi
  done
}

# launch PROGRAM VARIABLE ...: run PROGRAM with the variables as flags.
launch() {
  local program=$1
  as_flags "${@:2}"
  local arguments=("$BASE_PATH" "${FLAGS[@]}" "${USER_FLAGS[@]}")
  local command=("$PYTHON" "$CODE/$program")
  if [[ -n ${PROCESSES:-} && "$PROCESSES ${NNODES:-1} ${LAUNCHER:-}${HOSTFILE:-}" != "1 1 " ]]; then
    as_flags LAUNCHER NNODES NODE_RANK MASTER_ADDR MASTER_PORT HOSTFILE GRACE DIST_TIMEOUT
    command=("$PYTHON" "$CODE/cluster/launch.py" --nproc "$PROCESSES" "${FLAGS[@]}" "$program")
  fi
  printf '%q ' "${command[@]}" "${arguments[@]}" | sed 's/^/+ /' >&2
  echo >&2
  exec "${command[@]}" "${arguments[@]}"
}

# train [VARIABLE ...]: pretrain/train.py; the variables are those of the method's objective.
train() {
  PROCESSES=$(processes)
  launch pretrain/train.py MODEL_CONFIG MODEL_PATH DATA_DIR VALID_DATA TOKENIZER_PATH SAVE \
    GLOBAL_BATCH MICRO_BATCH LR LR_MIN WARMUP_STEPS TOTAL_STEPS STOP_STEP SAVE_EVERY LOG_EVERY \
    VALID_EVERY KEEP_LAST KEEP_EVERY RESUME PRECISION ATTENTION ZERO_STAGE SEED DIST_TIMEOUT \
    WANDB_MODE TRACKER WEIGHT_DECAY BETA2 CLIP SKIP_STEPS GRAD_CHECKPOINT COMPILE ALLOW_CHANGE \
    SHUFFLE OBJECTIVE "$@"
}

# distill: pre-training with a teacher online.
distill() {
  OBJECTIVE=${OBJECTIVE:-vanilla_kd}
  train TEACHER_PATH TEACHER_CACHE KD_RATIO KD_SCHEDULE TEMPERATURE REVERSE_KL KD_SKIP_ENTROPY
}

# minillm: training a pre-trained student on rollouts, with a teacher online.
minillm() {
  OBJECTIVE=${OBJECTIVE:-minillm}
  train TEACHER_PATH PROMPT_LENGTH NEW_TOKENS ROLLOUTS INNER_EPOCHS ROLLOUT_BATCH TEACHER_MIX \
    PPO_CLIP MINILLM_ORIGINAL
}

# regress: training of a proxy that predicts difference scores.
regress() {
  OBJECTIVE=${OBJECTIVE:-score_regression}
  train LABELS
}

# score [PROGRAM]: miniplm/score.py, scores with one model; KD_CACHE=true stores the model in the
# same pass. miniplm/proxy.py: what a proxy predicts.
score() {
  local settings=(MODEL_PATH DATA_DIR TOKENIZER_PATH SAVE SHARDS BLOCK_SIZE TOKENS_PER_BATCH
    PRECISION ATTENTION COMPILE ALLOW_REFERENCE_DATA)
  PROCESSES=$(processes)
  if (($# > 0)); then launch "$1" "${settings[@]}"; fi
  if [[ ${KD_CACHE:-false} == true ]]; then
    CACHE=${CACHE:-results/kd_cache/$DATA_NAME/$CORPUS_NAME/${SAVE##*/}}
    launch baselines/teacher_cache.py "${settings[@]}" CACHE KIND DRAWS SYSTEMATIC SEED
  fi
  launch miniplm/score.py "${settings[@]}"
}

# tokenize: tools/process_data/tokenize_pile.py, text to a corpus.
tokenize() {
  launch tools/process_data/tokenize_pile.py DATA_DIR TOKENIZER_PATH SAVE SPLIT SOURCE MAX_LENGTH \
    ADD_BOS SHARD_SIZE WORKERS SKIP_BAD_LINES SKIP_OTHER_FILES ENCODER
}

# convert: tools/convert_tokenization.py, a corpus to another tokenizer.
convert() {
  launch tools/convert_tokenization.py DATA_DIR TOKENIZER_PATH TARGET_TOKENIZER_PATH SAVE \
    MAX_LENGTH ADD_BOS WORKERS ENCODER
}
