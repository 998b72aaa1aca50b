#!/usr/bin/env bash
# Submit a launcher to Slurm: one run over NODES machines, or ARRAY jobs that share one scoring.
#   NODES=4 GPUS=8 TIME=24:00:00 PARTITION=gpu bash scripts/slurm/submit.sh LAUNCHER BASE_PATH [--flag value ...]
#   ARRAY=0-15 GPUS=1 bash scripts/slurm/submit.sh scripts/miniplm/difference_sampling/1.8B.sh BASE_PATH
# The launcher's variables are passed on (LR=3e-4 NODES=2 bash scripts/slurm/submit.sh ...). NOTICE
# seconds before TIME is over, the job writes a checkpoint and requeues itself; it then resumes.
# SBATCH_FLAGS: more flags for sbatch, e.g. SBATCH_FLAGS="--account=me --qos=low".
set -euo pipefail

CODE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
NODES=${NODES:-1}
GPUS=${GPUS:-0}
TIME=${TIME:-24:00:00}
PARTITION=${PARTITION:-}
ARRAY=${ARRAY:-}
NOTICE=${NOTICE:-300}
fail() { # CODE MESSAGE
  echo "ERROR $2" >&2
  exit "$1"
}
if (($# < 2)) || [[ ! -f $1 ]]; then
  fail 2 "the launcher does not exist: ${1:-none given}. Fix: bash $0 LAUNCHER BASE_PATH [--flag value ...]"
fi
[[ -d $2 ]] || fail 2 "BASE_PATH is not a directory: $2. Fix: create it or correct the path"
[[ -z $ARRAY || $NODES == 1 ]] || fail 2 "ARRAY jobs run on one machine each. Fix: leave NODES out"
command -v sbatch > /dev/null || fail 4 "sbatch was not found. Fix: run this on a machine with Slurm's commands"
LAUNCHER_FILE=$(realpath "$1")
BASE_PATH=$(realpath "$2")
shift 2

mkdir -p "$BASE_PATH/results/slurm"
words=(--job-name "$(basename "$LAUNCHER_FILE" .sh)" --nodes "$NODES" --ntasks-per-node 1)
words+=(--time "$TIME" --signal "B:USR1@$NOTICE" --requeue --open-mode append)
words+=(--output "$BASE_PATH/results/slurm/%x-%j.out" --export ALL)
if ((GPUS > 0)); then words+=(--gpus-per-node "$GPUS"); fi
if [[ -n $PARTITION ]]; then words+=(--partition "$PARTITION"); fi
if [[ -n $ARRAY ]]; then words+=(--array "$ARRAY" --output "$BASE_PATH/results/slurm/%x-%A_%a.out"); fi
# shellcheck disable=SC2206 # split into words
words+=(${SBATCH_FLAGS:-})
sbatch "${words[@]}" "$CODE/scripts/slurm/job.sh" "$LAUNCHER_FILE" "$BASE_PATH" "$@"
echo "output: $BASE_PATH/results/slurm/"
