#!/usr/bin/env bash
# What submit.sh gives to sbatch: the launcher, once on each machine of the job.
#   job.sh LAUNCHER BASE_PATH [--flag value ...]
set -euo pipefail

launcher=$1
shift
# Of the shell that submitted it, or of the site: this job's machines and processes are known here.
unset RANK WORLD_SIZE LOCAL_RANK NNODES MASTER_ADDR MASTER_PORT
if ((SLURM_NNODES > 1)); then
  MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000)) NNODES=$SLURM_NNODES
  export LAUNCHER=torchrun
fi
echo "$(date '+%F %T') job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST"

requeue=
# --wait: what is left a minute after the first machine's end is killed.
# shellcheck disable=SC2016 # for the shell of the task
srun --wait 60 bash -c 'NODE_RANK=$SLURM_NODEID exec bash "$@"' task "$launcher" "$@" &
step=$!
# The end of TIME comes near: all machines finish their step, write a checkpoint and leave with 75.
trap 'requeue=1; kill -USR1 $step' USR1
trap : TERM # scancel: the step has it, too, and ends by itself
code=0
while kill -0 $step 2> /dev/null; do
  code=0
  wait $step || code=$?
done
if [[ $requeue && ($code == 75 || $code == 138) ]]; then # 138: the signal came before Python's start
  echo "$(date '+%F %T') requeued: the next start goes on from the checkpoint"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
