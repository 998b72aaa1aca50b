"""Models are refused unless their folder is whole and their logits are what the losses assume."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output
from data_utils.errors import ArtefactError, EnvironmentFault, InputError
from pretrain.models import (
    check_head,
    compile_trunk,
    head_weight,
    hidden_states,
    load_model,
    new_model,
    resolve_precision,
    save_memory,
)
from tests import make

GEMMA = {
    "model_type": "gemma2",
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def random_model(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


@pytest.mark.parametrize("cap", [30.0, 0.1])
def test_a_soft_capped_model_is_refused(cap):
    """Also one whose logits are still so small that the cap does not show."""
    with pytest.raises(InputError, match="Gemma2ForCausalLM.*soft-capp"):
        check_head(random_model({**GEMMA, "final_logit_softcapping": cap}))
    check_head(random_model({**GEMMA, "final_logit_softcapping": None}))


def test_a_model_with_dropout_is_taken(tmp_path):
    """Its logits are what they have to be, but no two passes of training agree."""
    sizes = {"vocab_size": 60, "n_embd": 16, "n_layer": 1, "n_head": 2, "resid_pdrop": 0.5}
    ids = dict.fromkeys(("bos_token_id", "eos_token_id"), 0)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes, **ids}))
    assert not new_model(tmp_path / "config.json", 0, "eager").training


def test_a_soft_capped_configuration_is_refused_for_a_new_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GEMMA))
    with pytest.raises(InputError, match="soft-capp"):
        new_model(tmp_path / "config.json", 0, "eager")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_states_times_head_are_the_logits(dtype):
    model = random_model(make.qwen_config(100)).to(dtype)
    check_head(model)
    inputs = torch.arange(12).reshape(2, 6)
    ours = hidden_states(model, inputs) @ head_weight(model).T
    torch.testing.assert_close(ours, model(inputs).logits)


FAMILIES = {
    "qwen": make.qwen_config(100),
    "llama": {**make.qwen_config(100), "model_type": "llama"},
    "mamba": {"model_type": "mamba", "vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2,
              "state_size": 4},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_activations_change_no_gradient(family):
    def gradients(model):
        seen = []
        first = next(model.base_model.layers[0].children())
        first.register_forward_hook(lambda *_: seen.append(1))
        inputs = torch.arange(12).reshape(2, 6)
        (hidden_states(model.train(), inputs) @ head_weight(model).T).square().sum().backward()
        return len(seen), [p.grad for p in model.parameters()]

    kept, recomputed = random_model(FAMILIES[family]), random_model(FAMILIES[family])
    save_memory(recomputed)
    (runs, expected), (more_runs, found) = gradients(kept), gradients(recomputed)
    assert (runs, more_runs) == (1, 2)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_machine_without_a_compiler_is_told(monkeypatch):
    model = random_model(make.qwen_config(100))

    def broken(*_, **__):
        model.base_model.forward = lambda **_: (_ for _ in ()).throw(RuntimeError("no g++\nmore"))

    monkeypatch.setattr(model.base_model, "compile", broken)
    with pytest.raises(
        EnvironmentFault, match=r"does not work here \(no g\+\+ more\). Fix: set COMPILE"
    ):
        compile_trunk(model)


@pytest.mark.parametrize("tied", [False, True])
def test_weights_that_are_not_numbers_are_no_matter_of_the_heads_structure(tied):
    """The stage that meets them names the row."""
    model = random_model({**make.qwen_config(100), "tie_word_embeddings": tied})
    for weight in (model.model.layers[0].mlp.down_proj.weight, head_weight(model)):
        good = weight.data.clone()
        weight.data[50 % len(good), 0] = float("nan")
        check_head(model)
        weight.data.copy_(good)


def test_new_models_depend_on_the_seed_alone(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(make.qwen_config(100)))
    weights = []
    for seed in (10, 10, 11):
        torch.rand(3)
        weights.append(new_model(path, seed, "sdpa").state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True)
    )
    different = weights[2]["model.embed_tokens.weight"]
    assert not torch.equal(weights[0]["model.embed_tokens.weight"], different)
    assert all(t.dtype == torch.float32 for t in weights[0].values())


def with_manifest(folder):
    """Make the folder an artefact of ours."""
    files = [path.name for path in folder.iterdir()]
    Output(folder, "model", "tests", {}, {}).finish(files, {})
    return folder


@pytest.fixture
def folder(tmp_path):
    return make.save_model(tmp_path / "model", make.qwen_config(100), 0)


def test_a_whole_model_loads_with_its_weights(folder):
    expected = load_file(folder / "model.safetensors")
    for place in (folder, with_manifest(folder)):
        found = load_model(place, "fp32", "sdpa").state_dict()
        assert all(torch.equal(found[name], t) for name, t in expected.items())


def test_damage_in_an_artefact_of_ours_is_found_by_its_checksum(folder):
    with_manifest(folder)
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ArtefactError, match="checksum.*model.safetensors") as caught:
        load_model(folder, "fp32", "sdpa")
    assert caught.value.code == 3
    weights.unlink()
    with pytest.raises(ArtefactError, match="missing"):
        load_model(folder, "fp32", "sdpa")


def test_an_unfinished_model_is_refused(folder):
    atomic_files.write_json(folder / artefact.SETTINGS, {})
    with pytest.raises(ArtefactError, match="unfinished"):
        load_model(folder, "fp32", "sdpa")


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_weights(change):
    def damage(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


NORM = "model.norm.weight"
DAMAGE = {
    "truncated": truncate,
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "config is no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "a weight is missing": change_weights(lambda weights: weights.pop(NORM)),
    "a weight has another shape": change_weights(lambda w: w.update({NORM: torch.zeros(3)})),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_in_a_model_made_by_others_is_an_input_error(damage, folder):
    """None of them may end in a model that runs with random weights."""
    damage(folder)
    with pytest.raises(InputError) as caught:
        load_model(folder, "fp32", "sdpa")
    assert caught.value.code == 2 and str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_model_at_all(tmp_path):
    with pytest.raises(InputError, match="there is no model"):
        load_model(tmp_path / "nowhere", "fp32", "sdpa")


@pytest.mark.parametrize("text", ["", "[]", '{"hidden_size": 3}', '{"model_type": "nonsense"}'])
def test_a_configuration_that_is_none(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match="configuration"):
        new_model(path, 0, "sdpa")


def test_precision(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_precision("auto") == "fp16" and resolve_precision("bf16") == "bf16"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_precision("auto") == "fp32" and resolve_precision("bf16") == "bf16"
    with pytest.raises(EnvironmentFault, match="fp16"):
        resolve_precision("fp16")
