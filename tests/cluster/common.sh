# What the scripts of this folder share: a small BASE_PATH, an undisturbed run, checks.
set -euo pipefail

CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHON=${PYTHON:-$CODE/.venv/bin/python} OMP_NUM_THREADS=1
LAUNCHER_FILE=$CODE/scripts/pretrain/qwen/200M.sh
WORK=$(mktemp -d)
chmod 755 "$WORK"
BASE=$WORK/base
export MODEL_CONFIG=model.json DATA_DIR=corpus GLOBAL_BATCH=4 MICRO_BATCH=2 LR=1e-2 LR_MIN=1e-3
export WARMUP_STEPS=3 TOTAL_STEPS=${TOTAL_STEPS:-12} SAVE_EVERY=4 LOG_EVERY=1 VALID_DATA="held out" VALID_EVERY=4

cleanup() { :; }
trap 'cleanup; pkill -KILL -f "$BASE " || true; rm -rf "$WORK"' EXIT

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }

# check WORDS COMMAND ...: COMMAND must succeed.
check() {
  local words=$1
  shift
  if "$@"; then say "PASS $words"; else
    say "FAIL $words"
    tail -n 20 "$WORK"/*.txt | tr '\r' '\n' | grep -v "step/s"
    return 1
  fi
}

# until_true SECONDS COMMAND ...: wait until COMMAND succeeds.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@" > /dev/null 2>&1; do
    if ((SECONDS > end)); then return 1; fi
    sleep 0.2
  done
}

same_run() { "$PYTHON" "$CODE/tests/cluster/base.py" same "$BASE/$1" "$BASE/$2"; }
none_left() { until_true 15 no_process; }
no_process() { ! pgrep -f "train.py $BASE" > /dev/null; }

"$PYTHON" "$CODE/tests/cluster/base.py" make "$BASE"
NPROC=2 SAVE=undisturbed bash "$LAUNCHER_FILE" "$BASE" > "$WORK/undisturbed.txt" 2>&1
say "an undisturbed run of two processes is there"
