#!/usr/bin/env bash
# LAUNCHER=deepspeed with a HOSTFILE of two hosts, over a real sshd on the loopback and pdsh.
#   bash tests/cluster/hostfile.sh     as root; needs Debian's openssh-server and pdsh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

D=$WORK/ssh sshd=
cleanup() { if [[ $sshd ]]; then kill "$sshd" || true; fi; }
mkdir -p "$D" /run/sshd
for key in host_key id; do ssh-keygen -q -t ed25519 -N '' -f "$D/$key"; done
cp "$D/id.pub" "$D/authorized_keys"
printf '%s\n' 'Port 22022' 'ListenAddress 127.0.0.1' "HostKey $D/host_key" \
  "AuthorizedKeysFile $D/authorized_keys" "PidFile $D/sshd.pid" 'StrictModes no' 'UsePAM no' \
  'PasswordAuthentication no' > "$D/sshd_config"
printf '%s\n' 'Host *' 'Port 22022' "IdentityFile $D/id" 'IdentitiesOnly yes' \
  "UserKnownHostsFile $D/known_hosts" 'StrictHostKeyChecking accept-new' 'LogLevel ERROR' > "$D/ssh_config"
"$(command -v sshd)" -D -e -f "$D/sshd_config" > "$D/sshd.log" 2>&1 &
sshd=$!
printf 'localhost slots=1\n127.0.0.1 slots=1\n' > "$BASE/hosts"
export PDSH_SSH_ARGS_APPEND="-F $D/ssh_config" LAUNCHER=deepspeed HOSTFILE=hosts
export MASTER_ADDR=127.0.0.1 MASTER_PORT=29610
until_true 10 ssh -F "$D/ssh_config" localhost true

# run SAVE [VARIABLE=VALUE ...]: the launcher; its output and exit code in files.
run() {
  local code=0
  env SAVE="$1" "${@:2}" bash "$LAUNCHER_FILE" "$BASE" > "$WORK/$1.txt" 2>&1 || code=$?
  echo "$code" > "$WORK/$1.code"
}
LONG=(TOTAL_STEPS=1000000 SAVE_EVERY=1000000 VALID_EVERY=1000000)
launcher() { pgrep -f "launch.py .*$BASE .*--save $1 "; }
shown() { grep -h "ERROR \|STOPPED" "$WORK/$1.txt"; }
once() { [ "$(shown "$1" | wc -l)" = 1 ]; }

run two
check "two hosts train to the end: code $(cat "$WORK/two.code")" [ "$(cat "$WORK/two.code")" = 0 ]
check "bit for bit the undisturbed run" same_run two undisturbed

run stopped "${LONG[@]}" &
until_true 60 test -s "$BASE/stopped/metrics.jsonl"
kill -TERM "$(launcher stopped)"
wait $!
check "SIGTERM: checkpoint and code $(cat "$WORK/stopped.code")" [ "$(cat "$WORK/stopped.code")" = 75 ]
check "told once" once stopped
shown stopped
check "no process is left" none_left

run dying "${LONG[@]}" &
until_true 60 test -s "$BASE/dying/metrics.jsonl"
begin=$SECONDS
pkill -KILL -n -f "pretrain/train.py $BASE .*--save dying "
wait $!
check "a worker killed: code $(cat "$WORK/dying.code") after $((SECONDS - begin)) s" \
  [ "$(cat "$WORK/dying.code")" = 4 ]
check "told once" once dying
shown dying
check "no process is left" none_left

run killed "${LONG[@]}" &
until_true 60 test -s "$BASE/killed/metrics.jsonl"
kill -KILL "$(launcher killed)"
wait $! || true
check "the launcher killed: no process is left" none_left

run missing HOSTFILE=nowhere
check "a HOSTFILE that is not there: code 2" [ "$(cat "$WORK/missing.code")" = 2 ]
shown missing
printf 'localhost slots=1\nno-such-host slots=1\n' > "$BASE/strangers"
run unreachable HOSTFILE=strangers DIST_TIMEOUT=20
check "a host that cannot be reached: code $(cat "$WORK/unreachable.code")" \
  [ "$(cat "$WORK/unreachable.code")" = 4 ]
shown unreachable
check "no process is left" none_left
say "all passed"
