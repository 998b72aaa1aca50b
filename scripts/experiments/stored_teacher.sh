#!/usr/bin/env bash
# Students trained from a stored teacher against students trained with the teacher live, three seeds.
#   bash scripts/experiments/stored_teacher.sh [BASE_PATH=quickstart]
# BASE_PATH is that of a finished `quickstart.sh --all`: its corpus, teacher, stored teacher and
# held-out text are used. Run again it resumes. Variables: SEEDS. About 20 minutes on 2 cores.
set -euo pipefail

CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BASE=$(cd "${1:-$CODE/quickstart}" && pwd -P)
read -ra seeds <<< "${SEEDS:-10 11 12}"

CORPUS=processed_data/pretrain/pile/smollm2-129
TEST_SET=processed_data/held_out/smollm2-129
STORED_TEACHER=results/kd_cache/pile/smollm2-129/smollm2_135M
FOLDER=results/stored_teacher
TOTAL=$((4 * ${#seeds[@]}))
source "$CODE/scripts/stages.sh"
STAGES=$BASE/$FOLDER.tsv # not the quickstart's
touch "$STAGES"
prepare

for seed in "${seeds[@]}"; do
  for teacher in live stored; do
    run=$teacher-$seed
    cache=
    if [[ $teacher == stored ]]; then cache=$STORED_TEACHER; fi
    stage "Train, teacher $teacher, seed $seed" "$FOLDER/$run" \
      env MODEL_CONFIG=configs/models/quickstart/student.json TOTAL_STEPS=64 "SEED=$seed" \
      DATA_DIR=$CORPUS TEACHER_PATH=checkpoints/smollm2/135M "TEACHER_CACHE=$cache" \
      "SAVE=$FOLDER/$run" bash "$CODE/scripts/vanilla_kd/qwen/200M.sh" "$BASE"
    stage "Held-out loss, teacher $teacher, seed $seed" "results/eval/lm/$run.json" \
      bash "$CODE/scripts/eval/lm.sh" "$BASE" --model-path "$FOLDER/$run" --ckpt-name "$run" \
      --data-dir $TEST_SET
  done
done

for seed in "${seeds[@]}"; do
  "$PYTHON" "$CODE/eval/compare.py" "$BASE" --report "$FOLDER/seed-$seed.html" \
    --runs "stored-$seed=$FOLDER/stored-$seed,live-$seed=$FOLDER/live-$seed"
done
