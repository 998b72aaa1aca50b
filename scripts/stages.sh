# shellcheck shell=bash
# The stages of a pipeline, started in order: what is done is skipped, so that a run goes on where
# it was. Sourced by scripts that set BASE (an absolute path) and TOTAL, the number of stages.
STAGES=$BASE/stages.tsv
number=0
touch "$STAGES"

# stage NAME ARTEFACT COMMAND ...: run COMMAND unless it has made ARTEFACT before.
stage() {
  local name=$1 artefact=$2 started=$SECONDS command done_file
  shift 2
  number=$((number + 1))
  command=$(printf '%q ' "$@")
  done_file=$BASE/$artefact
  if [[ -d $done_file ]]; then done_file=$done_file/manifest.json; fi
  printf '\n[%d/%d] %s\n' "$number" "$TOTAL" "$name"
  if [[ -f $done_file ]] && grep -qF "$(printf '%s\t%s' "$artefact" "$command")" "$STAGES"; then
    echo "done: $artefact"
    return
  fi
  echo "\$ $command"
  "$@"
  grep -vF "$(printf '\t%s\t' "$artefact")" "$STAGES" > "$STAGES.tmp" || true
  printf '%s\t%s\t%s\t%s\n' "$name" "$artefact" "$command" $((SECONDS - started)) >> "$STAGES.tmp"
  mv "$STAGES.tmp" "$STAGES"
}

# together COMMAND ... -- COMMAND ...: both at once with a thread each; fails if one of them does.
together() {
  local first=() failed=0
  while [[ $1 != -- ]]; do
    first+=("$1")
    shift
  done
  shift
  OMP_NUM_THREADS=1 "${first[@]}" &
  OMP_NUM_THREADS=1 "$@" || failed=$?
  wait $! || failed=$?
  return $failed
}
