"""Tokenizers: settings that files carry change no id; ids beyond the count of entries.

.venv/bin/python -m pytest tests/data_utils/test_tokenizer.py
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.shards import token_type
from data_utils.tokenizer import (
    load_tokenizer,
    sentence_ends,
    tokenizer_fingerprint,
    vocabulary_size,
)
from tests import make, programs
from tests.chunk_oracle import SlowChunker
from tests.tokenization.test_chunker import compare
from tokenization import encode
from tokenization.chunker import Chunker
from tokenization.encode import Encoder, encode_slow

TEXTS = [*make.documents(4), "", f"a{make.EOS}b <|bos|> self .", "cafe\u0301 東京 !"]
TOKENIZE = "tools.process_data.tokenize_pile"
TRUNCATION = {"direction": "Right", "max_length": 32, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 7,
    "pad_type_id": 0, "pad_token": "%",
}  # fmt: skip
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}},
               {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [1], "tokens": ["<|bos|>"]}},
}  # fmt: skip
# What is changed in tokenizer.json, in tokenizer_config.json.
STATES = {
    "truncation": ({"truncation": TRUNCATION}, {}),
    "truncation on the left": ({"truncation": TRUNCATION | {"direction": "Left"}}, {}),
    "padding": ({"padding": PADDING}, {}),
    "padding to a size": ({"padding": PADDING | {"strategy": {"Fixed": 900}}}, {}),
    "dropout": ({"model": {"dropout": 0.5}}, {}),
    "template": ({"post_processor": TEMPLATE}, {}),
    "split_special_tokens": ({}, {"split_special_tokens": True}),
    "add_prefix_space": ({}, {"add_prefix_space": True}),
    "add_bos_token": ({}, {"add_bos_token": True, "add_eos_token": True}),
    "model_max_length": ({}, {"model_max_length": 16, "max_length": 8, "truncation_side": "left"}),
    "clean up": ({}, {"clean_up_tokenization_spaces": True}),
    "fix_mistral_regex": ({}, {"fix_mistral_regex": True}),
}
ALL = tuple({k: v for state in STATES.values() for k, v in state[i].items()} for i in (0, 1))


def changed(source: Path, target: Path, tokenizer: dict, config: dict) -> Path:
    """A copy of a tokenizer with other values in its files; of the model one level deeper."""
    shutil.copytree(source, target)
    for name, changes in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        value = json.loads((target / name).read_bytes())
        changes = {**changes}
        value.get("model", {}).update(changes.pop("model", {}))
        (target / name).write_text(json.dumps(value | changes))
    return target


def with_gap(source: Path, target: Path, distance: int, first: int = 580) -> Path:
    """A copy whose ids from first on are larger by distance, end-of-text being the last one."""
    shutil.copytree(source, target)
    path = target / "tokenizer.json"
    value = json.loads(path.read_bytes())
    vocabulary = value["model"]["vocab"]
    largest = max(vocabulary.values())
    for token, number in vocabulary.items():
        vocabulary[token] = number + distance * (number >= first)
    vocabulary[make.EOS] = value["added_tokens"][0]["id"] = largest + distance + 1
    path.write_text(json.dumps(value))
    return target


@pytest.fixture(scope="module")
def plain(tokenizer_folder):
    """Hugging Face's ids of the texts, one call a text, by the file as it was trained."""
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


def split(encoded) -> list[list[int]]:
    ids, lengths = encoded
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("state", STATES)
def test_settings_in_the_files_change_no_id(tokenizer_folder, tmp_path, plain, state):
    folder = changed(tokenizer_folder, tmp_path / "t", *STATES[state])
    tokenizer = load_tokenizer(folder)
    assert split(encode_slow(tokenizer, TEXTS)) == plain
    for fast in (True, False):
        encoder = Encoder(encode.Tokenizer(folder), TEXTS, fast=fast)
        assert split(encoder.encode(TEXTS)) == plain and (encoder.fast is not None) == fast
    assert tokenizer(TEXTS, add_special_tokens=False)["input_ids"] == plain
    assert split(encode_slow(tokenizer, TEXTS)) == plain  # the call left nothing behind
    expected = tokenizer_fingerprint(load_tokenizer(tokenizer_folder))
    assert tokenizer_fingerprint(tokenizer) == expected


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder):
    base = tmp_path_factory.mktemp("base")
    make.write_text(base / "text", TEXTS * 3)
    changed(tokenizer_folder, base / "state", *ALL)
    shutil.copytree(tokenizer_folder, base / "plain")
    return base


def tokenized(base: Path, tokenizer: str, save: str, *flags: object) -> Corpus:
    words = ["--data-dir", "text", "--max-length", 33, "--tokenizer-path", tokenizer]
    program = programs.call(base, TOKENIZE, base, *words, "--save", save, *flags)
    assert program.code == 0, program.errors
    return Corpus(base / save)


def test_a_corpus_depends_neither_on_settings_nor_on_workers(base):
    expected = tokenized(base, "plain", "plain-33", "--workers", 1)
    for number, flags in enumerate((["--workers", 2, "--encoder", "huggingface"],
                                    ["--workers", 1, "--encoder", "huggingface"], [])):  # fmt: skip
        found = tokenized(base, "state", f"state{number}-33", *flags)
        for name in ("data_0.bin", "data_0.idx", "domain_0.npy"):
            assert (found.folder / name).read_bytes() == (expected.folder / name).read_bytes()


@pytest.mark.parametrize("distance", [1, 1000, 65_500, 200_000])
def test_tables_follow_the_largest_id(tokenizer_folder, tmp_path, distance):
    """The chunker takes every id, and cuts as it does without the gap."""
    folder = with_gap(tokenizer_folder, tmp_path / "gap", distance)
    tokenizer, compact = load_tokenizer(folder), load_tokenizer(tokenizer_folder)
    size = 600 + distance + 1
    assert vocabulary_size(tokenizer) == size > len(tokenizer) == 600
    assert tokenizer.eos_token_id == size - 1
    tables, expected = sentence_ends(tokenizer), sentence_ends(compact)
    for name in ("ends", "newline", "space"):
        table, old = getattr(tables, name), getattr(expected, name)
        assert len(table) == size and np.array_equal(table[1:580], old[1:580])
        assert np.array_equal(table[580 + distance : -1], old[580:])
        assert not table[580 : 580 + distance].any()
    assert token_type(size) == np.dtype("<u2" if distance < 65_000 else "<i4")
    chunker = Chunker(tables, size - 1, 33, token_type(size))
    ids = tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert max(ids) > 580
    compare(chunker, SlowChunker(tokenizer, 33), [("A", ids)])


@pytest.mark.parametrize("flags", [[], ["--workers", 2, "--encoder", "huggingface"]])
def test_a_corpus_of_a_tokenizer_with_a_gap(base, tokenizer_folder, flags):
    name = f"gap{len(flags)}"
    with_gap(tokenizer_folder, base / name, 65_500)
    compact = tokenized(base, "plain", f"{name}-compact-33")
    corpus = tokenized(base, name, f"{name}-33", *flags)
    assert corpus.dtype == np.dtype("<i4") and len(corpus) == len(compact)
    for row in range(len(corpus)):
        ids = compact.row(row).astype(int)
        ids = np.where(ids >= 580, ids + 65_500, np.where(ids == 0, 600 + 65_500, ids))
        assert np.array_equal(corpus.row(row), ids)


@pytest.mark.parametrize(("vocab_size", "good"), [(600, False), (1600, False), (1601, True)])
def test_a_model_needs_an_embedding_for_the_largest_id(
    tokenizer_folder, tmp_path, vocab_size, good
):
    folder = with_gap(tokenizer_folder, tmp_path / "gap", 1000)
    (folder / "config.json").write_text(json.dumps({"vocab_size": vocab_size}))
    if good:
        assert vocabulary_size(load_tokenizer(folder)) == 1601
    else:
        with pytest.raises(InputError, match=r"config\.json: expected vocab_size at least 1601"):
            load_tokenizer(folder)


@pytest.mark.parametrize("distance", [0, 1000])
def test_an_added_token_that_gets_another_id_is_refused(tokenizer_folder, tmp_path, distance):
    """Beyond a gap the loader would give it the next number."""
    source = tokenizer_folder
    if distance:
        source = with_gap(tokenizer_folder, tmp_path / "gap", distance)
    added = json.loads((source / "tokenizer.json").read_bytes())["added_tokens"]
    added.append(added[0] | {"id": 5000, "content": "<|é|>"})
    folder = changed(source, tmp_path / "more", {"added_tokens": added}, {})
    with pytest.raises(InputError, match=r"added token .* in .*tokenizer\.json: expected 5000"):
        load_tokenizer(folder)


def test_an_id_of_two_entries_is_refused(tokenizer_folder, tmp_path):
    """An end-of-text that only the configuration names gets the number of entries as its id."""
    vocabulary = load_tokenizer(tokenizer_folder).get_vocab()
    model = {"vocab": {token: i + 10 * (i >= 580) for token, i in vocabulary.items()}}
    config = {"eos_token": "<|new|>"}
    folder = changed(tokenizer_folder, tmp_path / "gap", {"model": model}, config)
    with pytest.raises(InputError, match="has the id of another entry"):
        load_tokenizer(folder)


def test_an_absurd_id_is_refused(tokenizer_folder, tmp_path):
    folder = with_gap(tokenizer_folder, tmp_path / "gap", 1 << 31)
    with pytest.raises(InputError, match="too large"):
        load_tokenizer(folder)


def test_without_tokenizer_json_the_other_files_are_read(tokenizer_folder, tmp_path, plain):
    """A vocabulary and merges; a tokenizer of Python code alone has nothing that encodes here."""
    model = json.loads((tokenizer_folder / "tokenizer.json").read_bytes())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(map(" ".join, model["merges"]))
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": make.EOS, "bos_token": "<|bos|>"}
    config |= {"unk_token": make.EOS, "add_bos_token": True, "split_special_tokens": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    encoder = Encoder(encode.Tokenizer(tmp_path), TEXTS)
    assert split(encode_slow(tokenizer, TEXTS)) == split(encoder.encode(TEXTS)) == plain
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(InputError, match="Python code"):
        load_tokenizer(tmp_path)
