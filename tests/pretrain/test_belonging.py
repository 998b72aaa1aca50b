"""Models and corpora that do not belong together, and model folders that contradict themselves.

.venv/bin/python -m pytest tests/pretrain/test_belonging.py
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from data_utils.errors import InputError
from pretrain.models import check_head, load_model, new_model, try_saved
from tests import make, programs
from tests.pretrain import runs

GPT2 = {"model_type": "gpt2", "vocab_size": 600, "n_embd": 16, "n_layer": 1, "n_head": 2}
GPT2 |= dict.fromkeys(("bos_token_id", "eos_token_id"), 0)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A corpus with its model, one of another tokenizer, one without any and a bare corpus."""
    base = runs.make_base(tmp_path_factory.mktemp("base path"))
    config = make.qwen_config(runs.VOCAB)
    make.save_model(base / "own", config, 1, base / "tokenizer")
    other = make.train_tokenizer(base / "other tokenizer", make.documents(9, seed=5), runs.VOCAB)
    make.save_model(base / "other", config, 1, other)
    make.save_model(base / "bare model", config, 1)
    (base / "bare").mkdir()
    for path in (base / "corpus").glob("data_*"):
        shutil.copy(path, base / "bare")
    (base / "short.json").write_text(json.dumps({**GPT2, "n_positions": runs.LONGEST - 2}))
    make.save_model(base / "short", {**GPT2, "n_positions": 8}, 1, base / "tokenizer")
    return base


PROGRAMS = {
    "miniplm.score": {"save": "scores"},
    "eval.lm": {"split": "data"},
    "pretrain.train": {"save": "run", "global_batch": 4, "micro_batch": 2, "total_steps": 1}
    | {"warmup_steps": 0},
}


def call(base, program, **settings):
    flags = {"data_dir": "corpus", **PROGRAMS[program], **settings}
    return programs.call(base, program, base, *programs.flags(flags))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_model_of_another_tokenizer_is_refused(base, program):
    run = call(base, program, model_path="other")
    programs.one_message(run, 2, "tokenizer", "other")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("source", "damaged", "noun"),
    [("bare model", False, "no tokenizer"), ("own", True, "tokenizer")],
)
def test_a_model_without_a_good_tokenizer_is_refused_and_the_fix_works(
    base, program, source, damaged, noun, tmp_path
):
    model = shutil.copytree(base / source, tmp_path / "model")
    if damaged:
        (model / "tokenizer.json").write_text("{")
    run = call(base, program, model_path=model)
    programs.one_message(run, 2, noun, str(model), "copy")
    for path in (base / "corpus/tokenizer").iterdir():
        shutil.copy(path, model)
    save = {} if program == "eval.lm" else {"save": f"fixed {source} {program}"}
    run = call(base, program, model_path=model, **save)
    assert run.code == 0, run.errors


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_assumed_of_a_bare_corpus_is_said(base, program):
    save = {} if program == "eval.lm" else {"save": f"bare {program}"}
    settings = {"data_dir": "bare", "tokenizer_path": "tokenizer", **save}
    run = call(base, program, model_path="own", **settings)
    assert run.code == 0, run.errors
    assert "NOTE" in run.output and "does not record its tokenizer" in run.output
    assert "end-of-text: assuming 0" in run.output


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_model_with_fewer_positions_than_the_rows_is_refused(base, program):
    run = call(base, program, model_path="short")
    programs.one_message(run, 2, "positions", "short")


def test_a_configuration_with_fewer_positions_than_the_rows_is_refused(base):
    run = call(base, "pretrain.train", model_config="short.json")
    programs.one_message(run, 2, "positions", "short.json", "MAX_LENGTH")


def test_a_held_out_corpus_of_another_tokenizer_is_refused(base):
    rows = make.random_rows(5, runs.VOCAB, 0, longest=9)
    make.save_corpus(base / "other held out", rows, base / "other tokenizer", max_length=9)
    for model in ({"model_config": "model.json"}, {"model_path": "own"}):
        run = call(base, "pretrain.train", valid_data="other held out", **model)
        programs.one_message(run, 2, "tokenizer", "other held out")
    run = call(base, "pretrain.train", model_config="model.json", valid_data="bare", save="noted")
    assert run.code == 0 and "NOTE" in run.output, run.errors


def test_held_out_rows_longer_than_the_models_positions_are_refused(base):
    (base / "fits.json").write_text(json.dumps({**GPT2, "n_positions": runs.LONGEST - 1}))
    rows = make.random_rows(5, runs.VOCAB, 0, longest=60)
    make.save_corpus(base / "long held out", rows, base / "tokenizer", max_length=60)
    run = call(base, "pretrain.train", model_config="fits.json", valid_data="long held out")
    programs.one_message(run, 2, "positions", "fits.json")


def test_a_configuration_with_fewer_ids_than_the_tokenizer_is_refused(base):
    (base / "small.json").write_text(json.dumps(make.qwen_config(300)))
    run = call(base, "pretrain.train", model_config="small.json", save="never begun")
    programs.one_message(run, 2, "vocab_size", "300", "600")
    assert not (base / "never begun").exists()


@pytest.mark.parametrize("ids", [0, 7, [3], [7, 8], [7, 0], [0, 5]])
def test_the_models_ends_of_text_survive_and_another_one_is_said(base, ids):
    name = f"ends {ids}"
    config = {**make.qwen_config(runs.VOCAB), "eos_token_id": ids}
    (base / f"{name}.json").write_text(json.dumps(config))
    run = call(base, "pretrain.train", model_config=f"{name}.json", save=name)
    assert run.code == 0, run.errors
    noted = "NOTE the corpus's end-of-text is 0" in run.output
    assert noted == (ids in (7, [3], [7, 8]))
    AutoModelForCausalLM.from_pretrained(base / name)
    generation = GenerationConfig.from_pretrained(base / name)
    assert generation.eos_token_id == ids and isinstance(generation.pad_token_id, int)
    load_model(base / name, "fp32", "sdpa")


# --- folders --------------------------------------------------------------------------------------


def change(folder, change_weights=None, **config):
    """Change the weights and the configuration of a saved model."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    if change_weights:
        change_weights(weights)
    save_file(weights, path, metadata={"format": "pt"})
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **config}))
    return folder


HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
NORM = "model.norm.weight"


@pytest.fixture
def untied(tmp_path):
    config = {**make.qwen_config(100), "tie_word_embeddings": False}
    return make.save_model(tmp_path / "model", config, 0)


def test_a_head_of_its_own_that_the_configuration_denies_is_refused_and_the_fix_works(untied):
    change(untied, tie_word_embeddings=True)
    with pytest.raises(InputError, match="tie_word_embeddings"):
        load_model(untied, "fp32", "sdpa")
    change(untied, tie_word_embeddings=False)
    load_model(untied, "fp32", "sdpa")


def test_a_tied_head_that_the_configuration_denies_is_refused(tmp_path):
    folder = make.save_model(tmp_path / "model", make.qwen_config(100), 0)
    with pytest.raises(InputError, match=HEAD):
        load_model(change(folder, tie_word_embeddings=False), "fp32", "sdpa")


def test_a_second_copy_of_a_tied_head_is_taken(tmp_path):
    folder = make.save_model(tmp_path / "model", make.qwen_config(100), 0)
    change(folder, lambda weights: weights.update({HEAD: weights[EMBEDDING].clone()}))
    model = load_model(folder, "fp32", "sdpa")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    "name",
    ["model.layers.9.mlp.down_proj.weight", "lm_head.bias", "model.layers.0.extra.weight", NORM],
)
def test_weights_without_a_place_in_the_model_or_of_another_shape_are_refused(untied, name):
    change(untied, lambda weights: weights.update({name: torch.zeros(100)}))
    with pytest.raises(InputError) as caught:
        load_model(untied, "fp32", "sdpa")
    message = str(caught.value)
    assert name in message and "\n" not in message and ("shapes" in message) == (name == NORM)


def test_an_adapter_beside_a_model_is_refused(untied):
    (untied / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="adapter"):
        load_model(untied, "fp32", "sdpa")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "granite", "logits_scaling": 1.0005},  # within any tolerance
        {"model_type": "cohere", "logit_scale": 1.001},
        {"model_type": "gptj", "n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4},  # a bias
    ],
)
def test_what_the_head_does_is_known_by_structure(config):
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "eos_token_id": 0}
    heads |= {"pad_token_id": 0, "bos_token_id": 0}
    values = config if config["model_type"] == "gptj" else {**sizes, **config}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**heads, **values}))
    with pytest.raises(InputError, match=type(model).__name__):
        check_head(model)


def test_what_follows_the_head_shows_without_a_name_for_it():
    class Capped(torch.nn.Module):
        """A model that caps its logits and has no setting that says so."""

        def __init__(self, model):
            super().__init__()
            self.model, self.config, self.device = model, model.config, model.device
            self.base_model, self.get_output_embeddings = (
                model.base_model,
                model.get_output_embeddings,
            )

        def forward(self, **inputs):
            found = self.model(**inputs)
            found.logits = 1e4 * torch.tanh(found.logits / 1e4)
            return found

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**make.qwen_config(60)))
    check_head(model)
    with pytest.raises(InputError, match="Capped"):
        check_head(Capped(model))


def test_what_nobody_could_open_is_refused_before_the_first_step(base):
    model = new_model(base / "model.json", 0, "sdpa")
    try_saved(model)
    model.lm_head = torch.nn.Linear(32, 7)
    with pytest.raises(InputError, match="lm_head"):
        try_saved(model)
