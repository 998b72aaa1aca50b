#!/usr/bin/env bash
# The paper's setting at a budget, for one card of 24 GB: 1 B training tokens per student.
#   PLAN=true bash scripts/experiments/benchmark_1B.sh                  # the cost; starts nothing
#   bash scripts/experiments/benchmark_1B.sh [BASE_PATH=benchmark_1B]   # run again it resumes
# Two shards of the Pile, 2 B tokens, are scored; the better half, 1 B tokens, is kept. Plain students
# and those of vanilla KD train once over a random half of the two shards, those of MiniPLM and of
# MiniPLM with KD once over the better half. One more plain student gets MiniPLM's FLOPs, the
# teacher's and the reference's included.
# Needs held-out text in BASE_PATH/data/dclm and the tasks' data sets in HF_HOME.
# Variables: TEACHER (1.8B or 0.5B), REFERENCE (train or download), SEEDS, MICRO_BATCH, TASKS,
# LONG_STEPS (of the one more student, 0: none), DOCUMENTS, TFLOPS (assumed by the plan); TEXT_FROM,
# TEACHER_FROM, REFERENCE_FROM (copies instead of the hub). SCALE=tiny is for the test: all stages on a CPU.
set -euo pipefail

CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PLACE=${1:-$CODE/benchmark_1B}
TEACHER=${TEACHER:-1.8B}
REFERENCE=${REFERENCE:-train}
read -ra seeds <<< "${SEEDS:-1 2 3}"
published=teacher # as tools/get_models.py names it
if [[ $TEACHER == 0.5B ]]; then published="teacher-0.5B"; fi
models=configs/models/qwen
case ${SCALE:-1B} in
  1B)
    DOCUMENTS=${DOCUMENTS:-2400000} # of 1,500 tokens, about: more than three shards
    length=1025 shard=1000000 steps=7812 batch=128 held_out=2048 valid_every=250
    teacher=$models/${TEACHER/0.5B/500M}.json # Qwen1.5-0.5B has the shape of the 500M student
    reference=$models/104M_ref.json student=$models/200M.json
    # 12.7 GB with 16 rows and without GRAD_CHECKPOINT (see the plan).
    micro=${MICRO_BATCH:-16} hardware=(PRECISION=bf16 WARMUP_STEPS=150 SAVE_EVERY=500)
    ;;
  tiny)
    DOCUMENTS=${DOCUMENTS:-400}
    length=65 shard=64 steps=8 batch=8 held_out=32 valid_every=2
    teacher=$models/tiny.json reference=$teacher student=$teacher
    micro=4 hardware=(PRECISION=fp32 WARMUP_STEPS=2 SAVE_EVERY=4)
    ;;
  *)
    echo "ERROR SCALE must be 1B or tiny, not $SCALE. Fix: leave it out" >&2
    exit 2
    ;;
esac
if [[ $TEACHER != 1.8B && $TEACHER != 0.5B ]]; then
  echo "ERROR TEACHER must be 1.8B or 0.5B, not $TEACHER. Fix: e.g. TEACHER=0.5B" >&2
  exit 2
fi

plan=("${PYTHON:-python3}" "$CODE/experiments/benchmark_1B/plan.py" "$CODE"
  --teacher-config "$teacher" --reference-config "$reference" --student-config "$student"
  --reference "$REFERENCE" --documents "$DOCUMENTS" --max-length "$length" --shard-size "$shard"
  --steps "$steps" --global-batch "$batch" --micro-batch "$micro"
  --held-out "$held_out" --valid-every "$valid_every" --seeds "${#seeds[@]}"
  --long-steps "${LONG_STEPS:--1}" --tflops "${TFLOPS:-60}")
if [[ ${PLAN:-false} == true ]]; then exec "${plan[@]}"; fi

mkdir -p "$PLACE"
BASE=$(cd "$PLACE" && pwd -P)
source "$CODE/scripts/stages.sh"
settings=(DATA_NAME=pile TOKENIZER_NAME=qwen "MAX_LENGTH=$length" "TEACHER_NAME=qwen_$TEACHER"
  REF_NAME=qwen_104M "TOKENIZER_PATH=checkpoints/qwen/$TEACHER" RATIO=0.5 SCORE_SHARDS=0:2
  NPROC=1 "GLOBAL_BATCH=$batch" "MICRO_BATCH=$micro" "TOTAL_STEPS=$steps" LR=6e-4 LR_MIN=6e-5
  KEEP_LAST=1 "${hardware[@]}")
prepare
plan[0]=$PYTHON plan[2]=$BASE
"${plan[@]}"
long_steps=$("${plan[@]}" --long-steps-only true)
"$PYTHON" "$CODE/experiments/benchmark_1B/ready.py" "$BASE" --tasks "${TASKS:-}"

NAMES=qwen-$length
CORPUS=processed_data/pretrain/pile/$NAMES
REF_CORPUS=processed_data/pretrain/pile_ref/$NAMES
BETTER=processed_data/pretrain/pile-diff_samp-$TEACHER_NAME-$REF_NAME-r0.5/$NAMES
TEST_SET=processed_data/held_out/$NAMES
SCORES=results/scores/pile/$NAMES
DIFFERENCE=$SCORES/diff-$TEACHER_NAME-$REF_NAME
STORED_TEACHER=results/kd_cache/pile/$NAMES/$TEACHER_NAME
SAMPLING=$CODE/scripts/miniplm/difference_sampling
TOTAL=$((11 + 9 * ${#seeds[@]} + 1))
if ((long_steps)); then TOTAL=$((TOTAL + 2)); fi
runs=() # NAME=FOLDER of each student

# get WHAT FOLDER COPY: a published model.
get() {
  stage "Model: $1" "$2" "$PYTHON" "$CODE/tools/get_models.py" "$BASE" "$1" ${3:+--from "$3"}
}

# student NAME LAUNCHER VARIABLE=VALUE ...: train a student and evaluate it on the held-out rows.
student() {
  local name=$1 save=results/students/$1
  stage "Student: $name" "$save" env "MODEL_CONFIG=$student" "VALID_DATA=$TEST_SET" \
    "VALID_EVERY=$valid_every" "SAVE=$save" "${@:3}" bash "$CODE/scripts/$2/qwen/200M.sh" "$BASE"
  stage "Held-out loss: $name" "results/eval/lm/$name.json" \
    bash "$CODE/scripts/eval/lm.sh" "$BASE" --model-path "$save" --ckpt-name "$name" \
    --data-dir "$TEST_SET"
  runs+=("$name=$save")
}

stage "Text" data/pile/train "$PYTHON" "$CODE/tools/get_pile.py" "$BASE" --limit "$DOCUMENTS" \
  ${TEXT_FROM:+--from "$TEXT_FROM"}
get "$published" "checkpoints/qwen/$TEACHER" "${TEACHER_FROM:-}"
stage "Corpus" "$CORPUS" \
  env "SHARD_SIZE=$shard" bash "$CODE/scripts/tools/process_data/pile_qwen.sh" "$BASE"
stage "Held-out corpus" "processed_data/dclm/$NAMES" \
  env "SHARD_SIZE=$held_out" bash "$CODE/scripts/tools/process_data/dclm_qwen.sh" "$BASE"
stage "Its first rows" "$TEST_SET" "$PYTHON" "$CODE/tools/split_ref_data.py" "$BASE" \
  --data-dir "processed_data/dclm/$NAMES" --shards 0:1 --save "$TEST_SET"
stage "The reference's own part" "$REF_CORPUS" "$PYTHON" "$CODE/tools/split_ref_data.py" "$BASE" \
  --data-dir "$CORPUS" --shards 2:3 --save "$REF_CORPUS"
if [[ $REFERENCE == download ]]; then
  # What its training cost is not recorded: FLOPs of MiniPLM are then shown as unknown.
  get ref checkpoints/qwen/104M_ref "${REFERENCE_FROM:-}"
else
  stage "Train the reference" checkpoints/qwen/104M_ref \
    env "MODEL_CONFIG=$reference" bash "$CODE/scripts/pretrain/qwen/104M_ref.sh" "$BASE"
fi
# KD from what is stored of the teacher: this one pass gives the scores too, and serves all students
# of both KD methods. A live teacher would read the rows of each student again.
stage "Score with the teacher and store it" "$STORED_TEACHER" \
  env "MODEL_PATH=checkpoints/qwen/$TEACHER" bash "$CODE/scripts/vanilla_kd/cache_teacher.sh" "$BASE"
stage "Score with the reference" "$SCORES/$REF_NAME" bash "$SAMPLING/104M.sh" "$BASE"
stage "Difference scores" "$DIFFERENCE" "$PYTHON" "$SAMPLING/compute_difference_scores.py" "$BASE" \
  --scores "$SCORES"
select_half=("$PYTHON" "$SAMPLING/construct_pretrain_data.py" "$BASE" --data-dir "$CORPUS"
  --scores "$SCORES")
stage "Select the better half" "$BETTER" "${select_half[@]}"

# As many tokens with KD as without, unlike in the paper, which takes fewer steps with a teacher
# online: the comparison shows the FLOPs and the plain loss at as many.
kd=("TEACHER_PATH=checkpoints/qwen/$TEACHER" "TEACHER_CACHE=$STORED_TEACHER")
for seed in "${seeds[@]}"; do # of the random half and of the initial weights
  random=processed_data/pretrain/pile-random-$seed/$NAMES
  stage "A random half, seed $seed" "$random" \
    "${select_half[@]}" --criterion random --seed "$seed" --save "$random"
  student "plain-$seed" pretrain "SEED=$seed" "DATA_DIR=$random"
  student "vanilla_kd-$seed" vanilla_kd "SEED=$seed" "DATA_DIR=$random" "${kd[@]}"
  student "miniplm-$seed" miniplm/pretraining "SEED=$seed"
  student "miniplm_kd-$seed" miniplm_kd "SEED=$seed" "${kd[@]}"
done
# The control with MiniPLM's FLOPs reads the whole corpus, the reference's part too, again if need be.
if ((long_steps)); then
  student plain_long pretrain "SEED=${seeds[0]}" "TOTAL_STEPS=$long_steps" "DATA_DIR=$CORPUS"
fi

all=$(IFS=, && echo "${runs[*]}")
stage "Zero-shot tasks" results/eval/harness/zero_shot.md \
  bash "$CODE/scripts/eval/harness.sh" "$BASE" --model-path "$all" --ckpt-name zero_shot \
  --tasks "${TASKS:-}"
"$PYTHON" "$CODE/eval/compare.py" "$BASE" --runs "$all" --scores "$DIFFERENCE" \
  --stages stages.tsv --report report.html
