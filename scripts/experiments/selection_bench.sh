#!/usr/bin/env bash
# What is selection worth, by which criterion, and when? One pool of text and planted rows is scored
# once; ten criteria select from four mixtures of it; students of a small vocabulary are compared.
#   bash scripts/experiments/selection_bench.sh [BASE_PATH=selection_bench]
#   SCALE=gpu TEXT=FOLDER HELDOUT_TEXT=FOLDER bash scripts/experiments/selection_bench.sh BASE_PATH
# SCALE=cpu: text of this machine, one to three hours on 2 cores. SCALE=gpu: your text, planned for
# an hour of one H100, never run. The same command resumes. Variables: those that get a default
# below; experiments/selection_bench/bench.py has the names of conditions and criteria.
set -euo pipefail

CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "${1:-$CODE/selection_bench}"
BASE=$(cd "${1:-$CODE/selection_bench}" && pwd -P)
models=configs/models
case ${SCALE:=cpu} in
  tiny) defaults=(ROWS=64 STEPS=4 REFERENCE_STEPS=8 BATCH=8 JOBS=2 VALID_EVERY=2) ;;
  cpu) defaults=(ROWS=1280 STEPS=128 REFERENCE_STEPS=800 BATCH=8 JOBS=2 VALID_EVERY=32) ;;
  gpu)
    defaults=(ROWS=8192 STEPS=512 REFERENCE_STEPS=2000 BATCH=16 JOBS=4 VALID_EVERY=32
      MAX_LENGTH=513 PRECISION=bf16 SCORE_PRECISION=bf16 STUDENT_LR=6e-4 DOCUMENTS=100000
      "STUDENT=$models/selection_bench/student_gpu.json"
      "REFERENCE=$models/selection_bench/reference_gpu.json")
    : "${TEXT:?SCALE=gpu needs a folder of Pile-format files}"
    : "${HELDOUT_TEXT:?SCALE=gpu needs a folder of held-out text}"
    ;;
  *)
    echo "ERROR SCALE=$SCALE: expected tiny, cpu or gpu. Fix: set one of them" >&2
    exit 2
    ;;
esac
defaults+=(MAX_LENGTH=129 PRECISION=fp32 SCORE_PRECISION=fp32 STUDENT_LR=3e-3 VOCABULARY=4096
  "STUDENT=$models/quickstart/small_vocabulary.json" "REFERENCE=$models/quickstart/reference.json"
  "SEEDS=1 2 3" "CONDITIONS=no_plant junk_30 junk_50 shuffled_30" CRITERIA=)
for default in "${defaults[@]}"; do # what is set already stays
  variable=${default%%=*}
  if [[ -z ${!variable:-} ]]; then printf -v "$variable" '%s' "${default#*=}"; fi
done
read -ra numbers <<< "$SEEDS"
read -ra mixtures <<< "$CONDITIONS"
read -ra criteria <<< "${CRITERIA:+--criteria $CRITERIA}"
TOTAL=$((16 + ${#mixtures[@]} * 2))
source "$CODE/scripts/stages.sh"
settings+=("MAX_LENGTH=$MAX_LENGTH" "PRECISION=$PRECISION")
prepare

PRETRAIN=processed_data/pretrain
CORPUS=$TOKENIZER_NAME-$MAX_LENGTH
TEST_SET=processed_data/held_out/$CORPUS
BENCH=$CODE/experiments/selection_bench
SAMPLING=$CODE/scripts/miniplm/difference_sampling
tokenize=$CODE/scripts/tools/process_data/pile_qwen.sh
# The pool's shares: ROWS of text, half as many of junk and three tenths as many shuffled.
POOL=$((ROWS * 18 / 10 + 8)) JUNK_SHARE=0.278 NOISE_SHARE=0.167
POOL_SCORES=results/scores/pool/$CORPUS

if [[ $SCALE == gpu ]]; then
  stage "Text" data/pile/train "$PYTHON" "$CODE/tools/get_pile.py" "$BASE" \
    --from "$TEXT" --limit "$DOCUMENTS"
  held_out=$HELDOUT_TEXT
else
  stage "Text from this machine" data/pile/train \
    "$PYTHON" "$CODE/tools/get_pile.py" "$BASE" --source local --plant-noise 0 \
    --local-bytes $((POOL * 2 * 520)) --heldout-bytes 120000
  held_out=data/pile/heldout
fi
mkdir -p "$BASE/junk"
stage "Junk from this machine" junk/data/pile/train \
  "$PYTHON" "$CODE/tools/get_pile.py" "$BASE/junk" --source local --plant junk --plant-noise 1 \
  --local-bytes $((POOL * 2 * MAX_LENGTH * 3 / 2)) --heldout-bytes 0
stage "Teacher: SmolLM2-135M" checkpoints/smollm2/135M \
  "$PYTHON" "$CODE/tools/get_models.py" "$BASE" smollm2
stage "Clean corpus" "$PRETRAIN/clean/$CORPUS" \
  env DATA_NAME=clean SHARD_SIZE="$POOL" bash "$tokenize" "$BASE"
stage "Corpus of junk" "$PRETRAIN/junk/$CORPUS" \
  env DATA_NAME=junk TEXT=junk/data/pile/train bash "$tokenize" "$BASE"
stage "Held-out corpus" "$TEST_SET" \
  env TEXT="$held_out" SAVE="$TEST_SET" bash "$tokenize" "$BASE" --split test
stage "Pool: text, junk and shuffled rows" "$PRETRAIN/pool/$CORPUS" \
  "$PYTHON" "$CODE/experiments/planted_noise/plant.py" "$BASE" \
  --data-dir "$PRETRAIN/clean/$CORPUS" --junk-dir "$PRETRAIN/junk/$CORPUS" \
  --junk $JUNK_SHARE --noise $NOISE_SHARE --save "$PRETRAIN/pool/$CORPUS"
stage "The reference's own part" "$PRETRAIN/pool_ref/$CORPUS" \
  "$PYTHON" "$CODE/tools/split_ref_data.py" "$BASE" --data-dir "$PRETRAIN/pool/$CORPUS" \
  --shards 1:2 --save "$PRETRAIN/pool_ref/$CORPUS"
stage "Train the reference model" checkpoints/llama/5M_ref \
  env DATA_NAME=pool "MODEL_CONFIG=$REFERENCE" SAVE=checkpoints/llama/5M_ref \
  TOTAL_STEPS="$REFERENCE_STEPS" "VALID_DATA=$TEST_SET" VALID_EVERY=100 \
  bash "$CODE/scripts/pretrain/qwen/104M_ref.sh" "$BASE"
scoring=(env DATA_NAME=pool "PRECISION=$SCORE_PRECISION" SCORE_SHARDS=0:1 BLOCK_SIZE=64
  TOKENS_PER_BATCH=2048)
stage "Score the pool with the teacher" "$POOL_SCORES/$TEACHER_NAME" \
  "${scoring[@]}" MODEL_PATH=checkpoints/smollm2/135M bash "$SAMPLING/1.8B.sh" "$BASE"
stage "Score the pool with the reference" "$POOL_SCORES/$REF_NAME" \
  "${scoring[@]}" MODEL_PATH=checkpoints/llama/5M_ref bash "$SAMPLING/104M.sh" "$BASE"
stage "Difference scores of the pool" "$POOL_SCORES/diff-$TEACHER_NAME-$REF_NAME" \
  "$PYTHON" "$SAMPLING/compute_difference_scores.py" "$BASE" --scores "$POOL_SCORES" \
  --teacher-name "$TEACHER_NAME" --ref-name "$REF_NAME"
stage "Tokenizer of the students" checkpoints/bpe \
  "$PYTHON" "$CODE/tools/train_tokenizer.py" "$BASE" --vocabulary "$VOCABULARY"
stage "Held-out corpus in their tokens" processed_data/held_out/students \
  "$PYTHON" "$CODE/tools/convert_tokenization.py" "$BASE" --data-dir "$TEST_SET" \
  --target-tokenizer-path checkpoints/bpe --max-length $((2 * MAX_LENGTH - 1)) \
  --save processed_data/held_out/students
for condition in "${mixtures[@]}"; do
  scores=results/scores/$condition/$CORPUS
  stage "$condition: rows of the pool" "$scores/$REF_NAME" \
    "$PYTHON" "$BENCH/mixture.py" "$BASE" --pool "$PRETRAIN/pool/$CORPUS" \
    --pool-scores "$POOL_SCORES" --teacher-name "$TEACHER_NAME" --ref-name "$REF_NAME" \
    --save "$PRETRAIN/$condition/$CORPUS" --scores "$scores" --rows "$ROWS" \
    --condition "$condition"
  stage "$condition: difference scores" "$scores/diff-$TEACHER_NAME-$REF_NAME" \
    "$PYTHON" "$SAMPLING/compute_difference_scores.py" "$BASE" --scores "$scores" \
    --teacher-name "$TEACHER_NAME" --ref-name "$REF_NAME"
done

grid=("$BASE" --conditions "${mixtures[@]}" "${criteria[@]}" --seeds "${numbers[@]}"
  --corpus "$CORPUS" --teacher-name "$TEACHER_NAME" --ref-name "$REF_NAME")
stage "Students: selections, training, held-out losses" results/selection_bench/students.json \
  "$PYTHON" "$BENCH/students.py" "${grid[@]}" --max-length $((2 * MAX_LENGTH - 1)) \
  --model-config "$STUDENT" --steps "$STEPS" --batch "$BATCH" --lr "$STUDENT_LR" \
  --valid-every "$VALID_EVERY" --precision "$PRECISION" --jobs "$JOBS"
stage "Results" results/selection_bench/report.html "$PYTHON" "$BENCH/results.py" "${grid[@]}"
