#!/usr/bin/env bash
# What selection does to noise and boiler-plate planted in real text, and what a student gains by it
# at several shares of noise. Under two hours on 2 cores, no GPU.
#   bash scripts/experiments/planted_noise.sh [BASE_PATH=planted_noise]
# Models and sizes are the quickstart's. The same command resumes. Variables: EXPERIMENT_SEQUENCES
# (per shard), SHARES (of noise), SEEDS. Results: BASE_PATH/results/planted_noise.
set -euo pipefail

CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "${1:-$CODE/planted_noise}"
BASE=$(cd "${1:-$CODE/planted_noise}" && pwd -P)
SEQUENCES=${EXPERIMENT_SEQUENCES:-512}
read -ra shares <<< "${SHARES:-0 0.1 0.3 0.5}"
read -ra seeds <<< "${SEEDS:-1 2 3}"

PRETRAIN=processed_data/pretrain
CORPUS=smollm2-129
TEST_SET=processed_data/held_out/$CORPUS
SAMPLING=$CODE/scripts/miniplm/difference_sampling
TEXT=$CODE/scripts/tools/process_data/pile_qwen.sh
TOTAL=$((4 + 7 + ${#shares[@]} * (7 + 3 * ${#seeds[@]})))
source "$CODE/scripts/stages.sh"
prepare

# use NAME: set what the stages of a planted corpus have in common.
use() {
  name=$1 data=$PRETRAIN/$1/$CORPUS scores=results/scores/$1/$CORPUS
  names=(--scores "$scores" --teacher-name "$TEACHER_NAME" --ref-name "$REF_NAME")
  select_half=("$PYTHON" "$SAMPLING/construct_pretrain_data.py" "$BASE" --ratio 0.5
    "${names[@]}" --data-dir "$data")
}

# select_from NAME SHARDS FLAGS ...: plant as the flags say; train the corpus's own reference on
# shards 4 and 5, score SHARDS with teacher and reference, keep the better half.
select_from() {
  use "$1"
  local ref=checkpoints/$name/5M_ref
  local scoring=(env "DATA_NAME=$name" "SCORE_SHARDS=$2" BLOCK_SIZE=64 TOKENS_PER_BATCH=2048)
  stage "$name: planted corpus" "$data" "$PYTHON" "$CODE/experiments/planted_noise/plant.py" \
    "$BASE" --data-dir "$PRETRAIN/clean/$CORPUS" --save "$data" "${@:3}"
  stage "$name: the reference's own part" "$PRETRAIN/${name}_ref/$CORPUS" \
    "$PYTHON" "$CODE/tools/split_ref_data.py" "$BASE" --data-dir "$data" \
    --shards 4:6 --save "$PRETRAIN/${name}_ref/$CORPUS"
  stage "$name: train the reference model" "$ref" \
    env "DATA_NAME=$name" MODEL_CONFIG=configs/models/quickstart/reference.json "SAVE=$ref" \
    TOTAL_STEPS=$((SEQUENCES / 4)) bash "$CODE/scripts/pretrain/qwen/104M_ref.sh" "$BASE"
  stage "$name: score with the teacher" "$scores/$TEACHER_NAME" \
    "${scoring[@]}" MODEL_PATH=checkpoints/smollm2/135M bash "$SAMPLING/1.8B.sh" "$BASE"
  stage "$name: score with the reference" "$scores/$REF_NAME" \
    "${scoring[@]}" "MODEL_PATH=$ref" bash "$SAMPLING/104M.sh" "$BASE"
  stage "$name: difference scores" "$scores/diff-$TEACHER_NAME-$REF_NAME" \
    "$PYTHON" "$SAMPLING/compute_difference_scores.py" "$BASE" "${names[@]}"
  stage "$name: select the better half" "$PRETRAIN/$name-better_half/$CORPUS" \
    "${select_half[@]}" --save "$PRETRAIN/$name-better_half/$CORPUS"
}

# students NAME SEED: one on the better half, one on a random half; their losses on clean text.
students() {
  use "$1"
  local better=$name-better_half-seed$2 random=$name-random_half-seed$2
  local train=(env MODEL_CONFIG=configs/models/quickstart/student.json "SEED=$2"
    "TOTAL_STEPS=$((SEQUENCES / 8))" bash "$CODE/scripts/pretrain/qwen/200M.sh" "$BASE")
  local losses=(bash "$CODE/scripts/eval/lm.sh" "$BASE" --data-dir "$TEST_SET")
  stage "$name: select a random half, seed $2" "$PRETRAIN/$random/$CORPUS" \
    "${select_half[@]}" --save "$PRETRAIN/$random/$CORPUS" --criterion random --seed "$2"
  stage "$name: pre-train on both halves, seed $2" "results/students/$random" together \
    "${train[@]}" --save "results/students/$better" \
    --data-dir "$PRETRAIN/$name-better_half/$CORPUS" -- \
    "${train[@]}" --save "results/students/$random" --data-dir "$PRETRAIN/$random/$CORPUS"
  stage "$name: held-out losses, seed $2" "results/eval/lm/$random.json" together \
    "${losses[@]}" --model-path "results/students/$better" --ckpt-name "$better" -- \
    "${losses[@]}" --model-path "results/students/$random" --ckpt-name "$random"
}

stage "Text from this machine" data/pile/train \
  "$PYTHON" "$CODE/tools/get_pile.py" "$BASE" --source local --plant-noise 0 \
  --local-bytes $((SEQUENCES * 2700)) --heldout-bytes 90000
stage "Teacher: SmolLM2-135M" checkpoints/smollm2/135M \
  "$PYTHON" "$CODE/tools/get_models.py" "$BASE" smollm2
stage "Clean corpus" "$PRETRAIN/clean/$CORPUS" \
  env DATA_NAME=clean SHARD_SIZE="$SEQUENCES" bash "$TEXT" "$BASE"
stage "Clean held-out corpus" $TEST_SET \
  env TEXT=data/pile/heldout SAVE=$TEST_SET bash "$TEXT" "$BASE" --split test

select_from planted 0:4 --noise 0.1 --boilerplate 0.1
for share in "${shares[@]}"; do select_from "noise-$share" 0:1 --noise "$share"; done
for seed in "${seeds[@]}"; do
  for share in "${shares[@]}"; do students "noise-$share" "$seed"; done
done

"$PYTHON" "$CODE/experiments/planted_noise/results.py" "$BASE" \
  --shares "${shares[@]}" --seeds "${seeds[@]}"
