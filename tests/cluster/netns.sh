#!/usr/bin/env bash
# Two machines as network namespaces (each with its own process ids and host name): torchrun.
#   bash tests/cluster/netns.sh     as root; needs ip and unshare
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ID=mp$$
cleanup() {
  for r in 0 1; do ip netns del "${ID}h$r" 2> /dev/null || true; done
  rm -rf /etc/netns/"${ID}"h[01]
}
for r in 0 1; do
  ip netns add "${ID}h$r"
  mkdir -p "/etc/netns/${ID}h$r"
  # As Debian sets it up: a machine's own name is an address of its loopback.
  printf '127.0.0.1 localhost\n127.0.1.1 h1\n10.77.0.1 h0\n' > "/etc/netns/${ID}h$r/hosts"
done
ip link add v0 netns "${ID}h0" type veth peer name v1 netns "${ID}h1"
for r in 0 1; do
  ip -n "${ID}h$r" addr add "10.77.0.$((r + 1))/24" dev "v$r"
  ip -n "${ID}h$r" link set lo up
  ip -n "${ID}h$r" link set "v$r" up
done

# machine RANK SAVE: the launcher on machine RANK; its output and exit code in files.
machine() {
  local code=0
  NNODES=2 NODE_RANK=$1 MASTER_ADDR=h0 MASTER_PORT=29655 SAVE=$2 ip netns exec "${ID}h$1" \
    unshare --uts --pid --fork --mount-proc --kill-child \
    bash -c "hostname h$1; exec bash \"\$@\"" machine "$LAUNCHER_FILE" "$BASE" \
    > "$WORK/$2.$1.txt" 2>&1 || code=$?
  echo "$code" > "$WORK/$2.$1.code"
}
both() {
  machine 0 "$1" &
  machine 1 "$1" &
}
codes() { echo "$(cat "$WORK/$1.0.code") $(cat "$WORK/$1.1.code")"; }
errors() { cat "$WORK/$1".[01].txt | grep -c "^ERROR" || true; }

both run
wait
check "two machines train to the end: exit codes $(codes run)" [ "$(codes run)" = "0 0" ]
check "bit for bit the undisturbed run of one machine" same_run run undisturbed

TOTAL_STEPS=100000 SAVE_EVERY=100000 both dying
until_true 60 test -s "$BASE/dying/metrics.jsonl"
pkill -KILL -n -f "train.py $BASE.*--save dying"
begin=$SECONDS
wait
check "a worker killed on one machine: codes $(codes dying), after $((SECONDS - begin)) s" \
  [ "$(codes dying)" = "4 4" ]
check "its error is shown once" [ "$(errors dying)" = 1 ]
grep -h "^ERROR\|^ended" "$WORK"/dying.[01].txt
check "no process is left" none_left

DIST_TIMEOUT=20 TOTAL_STEPS=100000 SAVE_EVERY=100000 both silent
until_true 60 test -s "$BASE/silent/metrics.jsonl"
ip -n "${ID}h1" link set v1 down
begin=$SECONDS
wait
check "the network of a machine goes: codes $(codes silent), after $((SECONDS - begin)) s" \
  [ "$(codes silent)" != "0 0" ]
grep -h "^ERROR\|^ended" "$WORK"/silent.[01].txt
check "no process is left" none_left
say "all passed"
