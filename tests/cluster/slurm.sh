#!/usr/bin/env bash
# A real Slurm with two nodes on this machine: training through submit.sh with a requeue before the
# time limit, scoring as an array.
#   bash tests/cluster/slurm.sh     as root; needs Debian's slurmctld slurmd slurm-client munge
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

S=$WORK/slurm HOST=$(hostname -s) daemons=()
cleanup() {
  scancel --user root 2> /dev/null || true
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do kill "${daemons[i]}" 2> /dev/null || true; done
  sleep 1
}
bg() {
  "$@" >> "$S/log/stdio.log" 2>&1 < /dev/null &
  daemons+=($!)
}
mkdir -p "$S"/{state,spool/n1,spool/n2,log,run}
chmod 755 "$S"
(umask 077 && head -c 1024 /dev/urandom > "$S/munge.key")
printf '127.0.0.1 localhost %s n1 n2\n' "$HOST" > "$S/hosts"
cat > "$S/slurm.conf" << CONF
ClusterName=mini
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthInfo=socket=$S/munge.sock,cred_expire=10
SlurmctldPidFile=$S/run/slurmctld.pid
SlurmdPidFile=$S/run/slurmd-%n.pid
StateSaveLocation=$S/state
SlurmdSpoolDir=$S/spool/%n
SlurmctldLogFile=$S/log/slurmctld.log
SlurmdLogFile=$S/log/slurmd-%n.log
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=2
ReturnToService=2
NodeName=n1 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=16818 CPUs=4 RealMemory=4000
NodeName=n2 NodeHostname=$HOST NodeAddr=127.0.0.1 Port=16819 CPUs=4 RealMemory=4000
PartitionName=debug Nodes=n1,n2 Default=YES MaxTime=30
CONF
export SLURM_CONF=$S/slurm.conf
two_idle() { [ "$(timeout 5 sinfo -h -o '%D%t')" = 2idle ]; }
bg munged --foreground --key-file="$S/munge.key" --socket="$S/munge.sock" --pid-file="$S/run/munged.pid" --seed-file="$S/munge.seed"
until_true 10 test -S "$S/munge.sock"
bg slurmctld -D
for n in n1 n2; do
  bg unshare -um sh -c "mount --bind '$S/hosts' /etc/hosts && hostname $n && exec slurmd -D -N $n"
done
check "two nodes are idle" until_true 30 two_idle

gone() { ! squeue -h -j "$1" 2> /dev/null | grep -q .; }
ended() { until_true "$1" gone "$2"; }
submit() { bash "$CODE/scripts/slurm/submit.sh" "$@" | sed -n 's/^Submitted batch job //p'; }

job=$(NODES=2 TIME=10 SAVE=run submit "$LAUNCHER_FILE" "$BASE")
ended 90 "$job"
cp "$BASE/results/slurm/200M-$job.out" "$WORK/run.txt"
check "sbatch of a launcher on two nodes ends with a model" test -f "$BASE/run/manifest.json"
check "bit for bit the undisturbed run" same_run run undisturbed

# Slurm looks at signals only every 30 s; the limit is a minute.
job=$(NODES=2 TIME=1 NOTICE=25 SAVE=requeued TOTAL_STEPS=1000000 SAVE_EVERY=1000000 VALID_EVERY=1000000 \
  submit "$LAUNCHER_FILE" "$BASE")
say "job $job is to be signalled before its limit of a minute, requeued and to resume"
output=$BASE/results/slurm/200M-$job.out
until_true 150 grep -q "resuming after step" "$output" || true
cp "$output" "$WORK/requeued.txt"
scancel "$job"
ended 60 "$job"
tr '\r' '\n' < "$output" | grep -v "step/s" | grep -v "^ *$" | cut -c1-160
check "SIGUSR1 before the limit: checkpoint and 75" grep -q "STOPPED by SIGUSR1 after step" "$output"
check "it requeued itself and resumed" grep -q "resuming after step" "$output"
check "the second start is number 1" grep -q "start 1," "$output"
check "scancel ends it with a checkpoint" grep -q "STOPPED by SIGTERM" "$output"
check "no process is left" none_left

score=$CODE/scripts/miniplm/difference_sampling/104M.sh
array=$(ARRAY=0-2 TIME=10 MODEL_PATH=scorer BLOCK_SIZE=4 SAVE=array submit "$score" "$BASE")
ended 120 "$array"
cat "$BASE"/results/slurm/104M-"${array}"_*.out > "$WORK/array.txt"
MODEL_PATH=scorer BLOCK_SIZE=4 SAVE=alone bash "$score" "$BASE" > "$WORK/alone.txt" 2>&1
fingerprint() { sed -n 's/^ "fingerprint": "\(.*\)",$/\1/p' "$BASE/$1/manifest.json"; }
check "an array of three scores one store" test -f "$BASE/array/manifest.json"
check "equal to one job's" [ "$(fingerprint array)" = "$(fingerprint alone)" ]
say "all passed"
