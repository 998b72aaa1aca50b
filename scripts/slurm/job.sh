#!/usr/bin/env bash
# The batch script that submit.sh submits: runs the launcher once on each machine of the job.
#   job.sh LAUNCHER BASE_PATH [--flag value ...]
set -euo pipefail

launcher=$1
shift
# These may come from the submitting shell or the site; this job has its own machines and processes.
unset RANK WORLD_SIZE LOCAL_RANK NNODES MASTER_ADDR MASTER_PORT
if ((SLURM_NNODES > 1)); then
  MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000)) NNODES=$SLURM_NNODES
  export LAUNCHER=torchrun
fi
echo "$(date '+%F %T') job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}, on $SLURM_JOB_NODELIST"

requeue=
# --wait: a minute after the first machine ends, the others are killed.
# shellcheck disable=SC2016 # expanded by the task's shell
srun --wait 60 bash -c 'NODE_RANK=$SLURM_NODEID exec bash "$@"' task "$launcher" "$@" &
step=$!
# TIME is nearly over: all machines finish their step, write a checkpoint and exit with 75.
trap 'requeue=1; kill -USR1 $step' USR1
trap : TERM # scancel: the step gets it too, and ends by itself
code=0
while kill -0 $step 2> /dev/null; do
  code=0
  wait $step || code=$?
done
if [[ $requeue && ($code == 75 || $code == 138) ]]; then  # 138: before Python started
  echo "$(date '+%F %T') requeued: the next start resumes from the checkpoint"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
