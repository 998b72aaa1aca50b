#!/usr/bin/env bash
# The whole method on this machine: real text, a real teacher, no GPU, no model hub.
#   bash scripts/quickstart.sh [--all] [BASE_PATH=quickstart]
# Every stage is one of the README's launchers with smaller variables. Run again it skips what is
# done and resumes. --all adds every baseline and both other families (scripts/all_stages.sh).
# Variables: QUICKSTART_SEQUENCES, PLANT (junk, shuffle or none), PLANT_NOISE (its share), SEED (of
# text, plant, initial weights and random half).
set -euo pipefail

all=false FAMILIES=false
if [[ ${1:-} == --all ]]; then
  all=true
  shift
fi
if $all && command -v npm > /dev/null; then FAMILIES=true; fi
CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "${1:-$CODE/quickstart}"
BASE=$(cd "${1:-$CODE/quickstart}" && pwd -P)
SEQUENCES=${QUICKSTART_SEQUENCES:-512}
PLANT=${PLANT:-junk}
PLANT_NOISE=${PLANT_NOISE:-0.4}
export SEED=${SEED:-10}
if [[ $PLANT == none ]]; then PLANT=shuffle PLANT_NOISE=0; fi

# Names and sizes besides those of stages.sh. The first shard is scored; the reference is trained on
# the next two, so never on a sequence that is scored.
CORPUS=processed_data/pretrain/pile/smollm2-129
REFINED=processed_data/pretrain/pile-diff_samp-smollm2_135M-llama_5M-r0.5/smollm2-129
CONTROL=processed_data/pretrain/pile-random_samp-smollm2_135M-llama_5M-r0.5/smollm2-129
TEST_SET=processed_data/held_out/smollm2-129
SCORES=results/scores/pile/smollm2-129
TEST_SMALL=processed_data/held_out/bpe-257 # in the students' tokens
STUDENT=results/miniplm/llama/1M
CONTROL_STUDENT=results/random_half/llama/1M
STORED_TEACHER=results/kd_cache/pile/smollm2-129/smollm2_135M
GENERATED=processed_data/pretrain/pile-smollm2_135M-gen/smollm2-129
SAMPLING=$CODE/scripts/miniplm/difference_sampling
TOTAL=21
if $all; then TOTAL=$((TOTAL + 1 + 5 * 2 + 3 + 2)); fi
if $FAMILIES; then TOTAL=$((TOTAL + 2 * 5)); fi
source "$CODE/scripts/stages.sh"
prepare

started=$SECONDS
select_half=("$PYTHON" "$SAMPLING/construct_pretrain_data.py" "$BASE"
  --data-dir "$CORPUS" --scores "$SCORES" --teacher-name "$TEACHER_NAME" --ref-name "$REF_NAME")

stage "Text from this machine" data/pile/train \
  "$PYTHON" "$CODE/tools/get_pile.py" "$BASE" --source local \
  --plant "$PLANT" --plant-noise "$PLANT_NOISE" --seed "$SEED" \
  --local-bytes $((SEQUENCES * 1500)) --heldout-bytes 90000
stage "Teacher: SmolLM2-135M" checkpoints/smollm2/135M \
  "$PYTHON" "$CODE/tools/get_models.py" "$BASE" smollm2
stage "Corpus" $CORPUS \
  env SHARD_SIZE="$SEQUENCES" bash "$CODE/scripts/tools/process_data/pile_qwen.sh" "$BASE"
stage "Held-out corpus" $TEST_SET \
  env TEXT=data/pile/heldout SAVE=$TEST_SET \
  bash "$CODE/scripts/tools/process_data/pile_qwen.sh" "$BASE" --split test
stage "The reference's own part" processed_data/pretrain/pile_ref/smollm2-129 \
  "$PYTHON" "$CODE/tools/split_ref_data.py" "$BASE" --data-dir $CORPUS --shards 1:3 \
  --save processed_data/pretrain/pile_ref/smollm2-129
stage "Train the reference model" checkpoints/llama/5M_ref \
  env MODEL_CONFIG=configs/models/quickstart/reference.json SAVE=checkpoints/llama/5M_ref \
  TOTAL_STEPS=$((SEQUENCES / 4)) bash "$CODE/scripts/pretrain/qwen/104M_ref.sh" "$BASE"
score_with_teacher=(env SCORE_SHARDS=0:1 MODEL_PATH=checkpoints/smollm2/135M BLOCK_SIZE=64
  TOKENS_PER_BATCH=2048)
if $all; then # one pass for both: the next stage finds its scores there
  stage "Score with the teacher and store it" $STORED_TEACHER \
    "${score_with_teacher[@]}" bash "$CODE/scripts/vanilla_kd/cache_teacher.sh" "$BASE"
fi
stage "Score with the teacher" "$SCORES/$TEACHER_NAME" \
  "${score_with_teacher[@]}" bash "$SAMPLING/1.8B.sh" "$BASE"
stage "Score with the reference" "$SCORES/$REF_NAME" \
  env SCORE_SHARDS=0:1 MODEL_PATH=checkpoints/llama/5M_ref BLOCK_SIZE=64 TOKENS_PER_BATCH=2048 \
  bash "$SAMPLING/104M.sh" "$BASE"
stage "Difference scores" "$SCORES/diff-$TEACHER_NAME-$REF_NAME" \
  "$PYTHON" "$SAMPLING/compute_difference_scores.py" "$BASE" \
  --scores $SCORES --teacher-name "$TEACHER_NAME" --ref-name "$REF_NAME"
stage "Select the better half" $REFINED "${select_half[@]}"
stage "Control: a random half" $CONTROL "${select_half[@]}" --criterion random \
  --seed "$SEED" --save $CONTROL
# Students of a small vocabulary: in so few steps those of a large one learn little more than how
# frequent tokens are, and then it matters little what they read (docs/experiments.md).
stage "Tokenizer of the students" checkpoints/bpe \
  "$PYTHON" "$CODE/tools/train_tokenizer.py" "$BASE"
for corpus in "$REFINED" "$CONTROL" "$TEST_SET"; do
  stage "Convert ${corpus%/*}" "${corpus%/*}/bpe-257" \
    "$PYTHON" "$CODE/tools/convert_tokenization.py" "$BASE" --data-dir "$corpus" \
    --target-tokenizer-path checkpoints/bpe --max-length 257 --save "${corpus%/*}/bpe-257"
done
train_small=(env MODEL_CONFIG=configs/models/quickstart/small_vocabulary.json LR=3e-3 LR_MIN=3e-4
  WARMUP_STEPS=16 "TOTAL_STEPS=$((SEQUENCES / 4))" "VALID_DATA=$TEST_SMALL" VALID_EVERY=16)
stage "Pre-train on the better half" $STUDENT \
  "${train_small[@]}" SAVE=$STUDENT "DATA_DIR=${REFINED%/*}/bpe-257" \
  bash "$CODE/scripts/miniplm/pretraining/qwen/200M.sh" "$BASE"
stage "Pre-train on the random half" $CONTROL_STUDENT \
  "${train_small[@]}" SAVE=$CONTROL_STUDENT "DATA_DIR=${CONTROL%/*}/bpe-257" \
  bash "$CODE/scripts/pretrain/qwen/200M.sh" "$BASE"
stage "Held-out loss: better half" results/eval/lm/better_half.json \
  bash "$CODE/scripts/eval/lm.sh" "$BASE" --model-path $STUDENT --ckpt-name better_half \
  --data-dir $TEST_SMALL
stage "Held-out loss: random half" results/eval/lm/random_half.json \
  bash "$CODE/scripts/eval/lm.sh" "$BASE" --model-path $CONTROL_STUDENT --ckpt-name random_half \
  --data-dir $TEST_SMALL
stage "A task of held-out text" configs/lm_harness_tasks/heldout_cloze.yaml \
  "$PYTHON" "$CODE/eval/cloze.py" "$BASE" --data-dir $TEST_SET --documents 32
stage "The right continuation among four" results/eval/harness/cloze.md \
  bash "$CODE/scripts/eval/harness.sh" "$BASE" --tasks heldout_cloze --ckpt-name cloze \
  --model-path "teacher=checkpoints/smollm2/135M,reference=checkpoints/llama/5M_ref,better_half=$STUDENT,random_half=$CONTROL_STUDENT"
RUNS=better_half=$STUDENT,random_half=$CONTROL_STUDENT
if $all; then source "$CODE/scripts/all_stages.sh"; fi

echo
"$PYTHON" "$CODE/eval/compare.py" "$BASE" \
  --runs "$RUNS" \
  --scores "$SCORES/diff-$TEACHER_NAME-$REF_NAME" \
  --stages stages.tsv --report report.html
echo "The pipeline took $((SECONDS - started)) s. Report: $BASE/report.html"
