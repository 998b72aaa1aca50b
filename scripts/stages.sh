# The stages of a pipeline, run in order; one that is done is skipped, so that a run resumes where it
# stopped. Sourced by scripts that set CODE, BASE (an absolute path) and TOTAL (number of stages).
STAGES=$BASE/stages.tsv
number=0
touch "$STAGES"

# Names, sizes and teacher: the same for all launchers of a pipeline on one machine.
settings=(TOKENIZER_NAME=smollm2 MAX_LENGTH=129 TEACHER_NAME=smollm2_135M REF_NAME=llama_5M
  TOKENIZER_PATH=checkpoints/smollm2/135M PRECISION=fp32 NPROC=1 GLOBAL_BATCH=8 MICRO_BATCH=8
  LR=2e-3 LR_MIN=2e-4 WARMUP_STEPS=8 LOG_EVERY=1 DATA_NAME=pile RATIO=0.5)

# prepare: install what the stages need and export the settings.
prepare() {
  bash "$CODE/install.sh"
  export PYTHON=$CODE/.venv/bin/python "${settings[@]}"
  printf '\nAll stages share these settings (export them to run a single one by hand):\n'
  printf 'export PYTHON=%q %s\n' "$PYTHON" "${settings[*]}"
}

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

# together COMMAND ... -- COMMAND ...: both at once, one thread each; fails if either of them does.
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
