"""Conversion to another tokenizer: equal to an obvious converter, whatever kills and workers do.

.venv/bin/python -m pytest tests/tokenization/test_convert_tokenization.py
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_utils import artefact
from data_utils.artefact_writer import describe
from data_utils.corpus import Corpus
from data_utils.tokenizer import copy_tokenizer, load_tokenizer
from tests import make, programs
from tests.data_utils.test_tokenizer import STATES, changed, with_gap
from tokenization.encode import Tokenizer
from tokenization.row_converter import Block, Converter

MODULE = "tools.convert_tokenization"
LAUNCHERS = "scripts/tools/convert_tokenization/convert_tokenization_qwen_{}.sh"
SELECTED = "processed_data/pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5"
EOS, BOS = 0, 1  # of the old tokenizer; of the new one they are the other way round


def slow_join(row, old, new, *, old_bos=False, bos=False) -> list[int]:
    """The rule, token by token, before an end-of-text is added and the row truncated."""
    row = [int(token) for token in row]
    if old_bos:
        assert row.pop(0) == old.bos_token_id
    parts, result = [[]], [new.bos_token_id] if bos else []
    for token in row:
        if token == old.eos_token_id:
            parts.append([])
        else:
            parts[-1].append(token)
    for number, part in enumerate(parts):
        text = old.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        result += [new.eos_token_id] if number > 0 else []
        result += new(text, add_special_tokens=False)["input_ids"]
    return result


def slow_convert(row, old, new, **how) -> list[int]:
    """The rule before the truncation."""
    result = slow_join(row, old, new, **how)
    return result if len(result) > 1 else [*result, new.eos_token_id]


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    """BASE_PATH with tokenizers "old" and "new", whose end-of-text and BOS have changed places."""
    base = tmp_path_factory.mktemp("a base")
    shutil.copytree(tokenizer_folder, base / "old")
    make.train_tokenizer(base / "plain new", make.documents(20, seed=5), vocab_size=400)
    tokens = {"eos_token": "<|bos|>", "bos_token": make.EOS}
    changed(base / "plain new", base / "new", {}, tokens)
    return base


def change_manifest(folder: Path, *, files: bool = False, **content: object) -> None:
    """Give a finished corpus another content, with `files` also their present checksums."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["content"] |= content
    if files:
        names = [e["name"] for e in manifest["files"] if (folder / e["name"]).exists()]
        manifest["files"] = [describe(folder, name) for name in names]
    del manifest["fingerprint"]
    artefact.Manifest(folder, **manifest).write()


def new_converter(base: Path, corpus: Path, *, length=9, fast=True, **how) -> Converter:
    """how: old_bos, bos, and the folders old and new."""
    old = Tokenizer(how.get("old", base / "old"), how.get("old_bos", False))
    new = Tokenizer(how.get("new", base / "new"), how.get("bos", False))
    return Converter(Corpus(corpus), old, new, EOS, length, fast=fast)


def converted(base: Path, folder: Path, rows: list, **how) -> tuple[list[list[int]], dict]:
    """(the new rows, the counts) of a corpus of these rows."""
    rows = [np.array(row, np.int64) for row in rows]
    corpus = make.save_corpus(folder / "c-65", rows, how.get("old", base / "old"))
    block = new_converter(base, corpus, **how).convert(0, len(rows))
    return split(block), block.counts


def split(block: Block) -> list[list[int]]:
    rows = np.split(block.tokens, np.cumsum(block.lengths)[:-1])
    return [row.tolist() for row in rows]


@pytest.fixture(scope="module")
def old(base):
    return load_tokenizer(base / "old")


@pytest.fixture(scope="module")
def new(base):
    return load_tokenizer(base / "new")


def ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


TOKENS = st.one_of(st.just(EOS), st.just(BOS), st.integers(2, 599), st.integers(2, 260))
ROWS = st.lists(
    st.one_of(
        st.lists(TOKENS, min_size=1, max_size=14), st.lists(st.just(EOS), min_size=1, max_size=12)
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module", params=["", "bos", "old_bos", "bos old_bos"])
def converter(request, base, tmp_path_factory):
    """(a converter, what its rows need in front, the oracle's settings)."""
    how = {name: name in request.param.split() for name in ("bos", "old_bos")}
    corpus = make.save_corpus(
        tmp_path_factory.mktemp("c") / "c-65", [np.array([BOS, 5, 6])], base / "old"
    )
    found = new_converter(base, corpus, **how)
    assert found.encoder.fast
    return found, [BOS] * how["old_bos"], how


@settings(max_examples=60)
@given(rows=ROWS)
def test_random_rows_become_what_the_obvious_converter_makes(converter, base, old, new, rows):
    """End-of-text anywhere, bytes that are not characters, rows of only end-of-text."""
    converter, front, how = converter
    folder = converter.corpus.folder.parent / "random-65"
    shutil.rmtree(folder, ignore_errors=True)
    rows = [np.array([*front, *row], np.int64) for row in [*rows, *[[]] * len(front)]]
    converter.corpus = Corpus(make.save_corpus(folder, rows, base / "old"))
    expected = [slow_convert(row, old, new, **how) for row in rows]
    cut = [row[:9] for row in expected]
    block = converter.convert(0, len(rows))
    assert split(block) == cut and block.lengths.tolist() == [len(row) for row in cut]
    counts = block.counts
    assert counts["tokens_before"] == sum(map(len, rows))
    assert counts["tokens"] == sum(map(len, cut))
    assert counts["tokens_cut"] == sum(map(len, expected)) - sum(map(len, cut))
    assert counts["truncated"] == sum(len(row) > 9 for row in expected)
    short = sum(len(slow_join(row, old, new, **how)) <= 1 for row in rows)
    assert counts["end_of_text_added"] == short


def test_rows_by_hand(base, old, new, tmp_path):
    """A trailing end-of-text stays, none is added; at most one token gets one; BOS counts."""
    word, letter, self, q = ids(old, "self"), ids(old, "q"), ids(new, "self"), ids(new, "q")
    assert len(letter) == len(q) == 1 and (new.eos_token_id, new.bos_token_id) == (1, 0)
    rows = [[*word, *word], [*word, EOS], [EOS, *word], [EOS], letter, [EOS, EOS, EOS],
            [*word, EOS, EOS, *word], letter * 20]  # fmt: skip
    many = ids(new, "q" * 20)
    expected = [ids(new, "selfself"), [*self, 1], [1, *self], [1, 1], [*q, 1], [1, 1, 1],
                [*self, 1, 1, *self], many]  # fmt: skip
    found, counts = converted(base, tmp_path / "a", rows, length=12)
    assert found == [row[:12] for row in expected]
    assert counts["end_of_text_added"] == 2
    assert counts["truncated"] == 1 and counts["tokens_cut"] == len(many) - 12
    expected[3:5] = [1], q  # with BOS they are two tokens
    found, counts = converted(base, tmp_path / "b", rows, length=12, bos=True)
    assert found == [[0, *row][:12] for row in expected]
    assert counts["end_of_text_added"] == 0
    assert counts["tokens_cut"] == len(many) + 1 - 12


@pytest.mark.parametrize("old_bos", [False, True])
def test_rows_with_other_special_tokens_are_counted_and_keep_them(
    base, old, new, tmp_path, old_bos
):
    """Neither end-of-text nor the BOS in front is one; several in a row count once."""
    added = json.loads((base / "old/tokenizer.json").read_text())["added_tokens"]
    added += [
        added[0] | {"id": 600, "content": "<|im_start|>"},
        added[0] | {"id": 601, "content": "<|user|>", "special": False},
    ]
    changed(base / "old", tmp_path / "old", {"added_tokens": added}, {})
    word = ids(old, "self")
    rows = [word, [600, *word], [*word, EOS, 600, 600], [601, *word], [EOS], [*word, BOS],
            [600]]  # fmt: skip
    rows = [[BOS] * old_bos + row for row in rows]
    how = {"old": tmp_path / "old", "old_bos": old_bos}
    found, counts = converted(base, tmp_path, rows, length=65, **how)
    assert counts["with_special_tokens"] == 4
    tokenizer = load_tokenizer(tmp_path / "old")
    assert found == [slow_convert(row, tokenizer, new, old_bos=old_bos) for row in rows]
    assert "<|im_start|>" in new.decode(found[1]) and "<|im_start|>" in new.decode(found[6])


@pytest.mark.parametrize("state", ["truncation", "padding", "dropout", "template", "add_bos_token",
                                   "split_special_tokens"])  # fmt: skip
def test_settings_in_either_tokenizers_files_change_nothing(base, corpus, tmp_path, state):
    for name in ("old", "new"):
        changed(base / name, tmp_path / name, *STATES[state])
    expected = split(new_converter(base, corpus, length=33).convert(0, 60))
    how = {"length": 33, "old": tmp_path / "old", "new": tmp_path / "new"}
    for fast in (True, False):
        found = new_converter(base, corpus, fast=fast, **how).convert(0, 60)
        assert split(found) == expected


@pytest.mark.parametrize("distance", [1, 1000, 65_500])
def test_tokenizers_with_gaps_on_both_sides(base, tmp_path, distance):
    """Ids beyond the count of entries are read and written; the token type follows the largest."""
    old = with_gap(base / "old", tmp_path / "old", distance)
    new = with_gap(base / "plain new", tmp_path / "new", distance + 3, first=380)
    rows = make.text_rows(old, 30, longest=33)
    make.save_corpus(tmp_path / "qwen-33", rows, old, max_length=33)
    assert max(map(max, rows)) >= 600
    flags = ["--data-dir", tmp_path / "qwen-33", "--target-tokenizer-path", new]
    convert(base, tmp_path / "out-33", *flags)
    found = Corpus(tmp_path / "out-33")
    assert found.dtype == np.dtype("<i4" if distance > 65_000 else "<u2")
    tokenizers = load_tokenizer(old), load_tokenizer(new)
    expected = [slow_convert(row, *tokenizers)[:33] for row in rows]
    assert [found.row(i).tolist() for i in range(30)] == expected
    assert max(map(max, expected)) >= 400


def test_characters_cut_in_two_are_counted(base, old, tmp_path):
    tokens = ids(old, "東京!")
    assert "\ufffd" in old.decode(tokens[:1])
    _, counts = converted(base, tmp_path, [tokens, tokens[:1] + [EOS] + tokens[1:]], length=65)
    assert counts["with_replacement_character"] == 1


@pytest.mark.parametrize("target", ["llama3_1", "uint16"])
def test_real_text_from_qwen(tmp_path, target):
    """Qwen -> Llama 3.1 with BOS, Qwen -> a vocabulary that fits uint16."""
    qwen = make.npm_tokenizer("qwen3", "<|endoftext|>")
    bos = target == "llama3_1"
    if bos:
        folder = make.npm_tokenizer("llama3_1", "<|end_of_text|>")
    else:
        folder = make.train_tokenizer(tmp_path / "small", make.documents(200), vocab_size=2000)
    old, new = load_tokenizer(qwen), load_tokenizer(folder)
    texts = make.mixed_texts(150_000)
    tokens = [i for text in texts for i in [*old(text)["input_ids"], old.eos_token_id]]
    rows = np.split(np.array(tokens), range(129, len(tokens), 129))
    corpus = make.save_corpus(tmp_path / "in/qwen-129", rows, qwen, max_length=129, shard_size=200)
    flags = ["--data-dir", corpus, "--target-tokenizer-path", folder]
    program = convert(tmp_path, "out/x-129", *flags, "--add-bos", bos)
    assert "encoding with gigatoken" in program.output + program.errors
    found = Corpus(tmp_path / "out/x-129")
    assert found.dtype == np.dtype("<i4" if bos else "<u2")
    expected = [slow_convert(row, old, new, bos=bos) for row in rows]
    for number, row in enumerate(expected):
        assert found.row(number).tolist() == row[:129], number
    counts = found.manifest.counts
    assert counts["truncated"] == sum(len(row) > 129 for row in expected) > 0
    assert counts["tokens_cut"] == sum(max(len(row) - 129, 0) for row in expected) > 0
    assert counts["tokens_before"] == len(tokens) and len(found.shards) > 1
    assert all(f"{counts[name]:,} " in program.output for name in ("truncated", "tokens_cut"))


# Runs of the whole program on a corpus of five shards.


@pytest.fixture(scope="module")
def corpus(base) -> Path:
    rows = make.text_rows(base / "old", 230, longest=33, seed=2)
    return make.save_corpus(
        base / "in/qwen-33", rows, base / "old", max_length=33, shard_size=50, split="data"
    )


FLAGS = ["--data-dir", "in/qwen-33", "--target-tokenizer-path", "new", "--workers", "1"]


def convert(base: Path, save: object, *flags: object, code: int = 0):
    program = programs.call(base, MODULE, base, *FLAGS, "--save", save, *flags)
    assert program.code == code, program.errors
    return program


@pytest.fixture(scope="module")
def undisturbed(base, corpus) -> dict[str, str]:
    convert(base, "undisturbed/x-33")
    return make.content(base / "undisturbed/x-33")


def test_the_program_converts_shard_for_shard(base, corpus, old, new, undisturbed):
    given, found = Corpus(corpus), Corpus(base / "undisturbed/x-33")
    assert [len(s) for s in found.shards] == [len(s) for s in given.shards] == [50] * 4 + [30]
    expected = [slow_convert(given.row(i), old, new) for i in range(len(given))]
    for row, tokens in enumerate(expected):
        assert found.row(row).tolist() == tokens[:33]
    manifest = found.manifest
    assert manifest.content["max_length"] == 33 and not manifest.content["add_bos"]
    assert manifest.content["eos_id"] == 1 and manifest.content["split"] == "data"
    assert manifest.input_fingerprint("corpus") == given.identity["fingerprint"]
    assert manifest.counts["tokens"] == sum(min(len(row), 33) for row in expected)
    assert "tokenizer/tokenizer.json" in undisturbed
    assert load_tokenizer(found.tokenizer_folder).eos_token_id == 1


def test_domains_and_row_numbers_travel_along(base, corpus, undisturbed, tmp_path):
    """A corpus without source_row gets its own row numbers, a selected one keeps its."""
    given, found = Corpus(corpus), Corpus(base / "undisturbed/x-33")
    rows = np.arange(len(given))
    assert found.domains == ["A", "B"]
    assert np.array_equal(found.side("domain", rows), given.side("domain", rows))
    own = found.side("source_row", rows)
    assert own.dtype == np.int64 and np.array_equal(own, rows)
    assert found.manifest.report["source_row"] == "row of the input"
    selected = tmp_path / "selected-33"
    shutil.copytree(corpus, selected)
    taken = np.sort(np.random.default_rng(1).choice(9999, len(rows), replace=False))
    for shard, part in enumerate(np.split(taken, range(50, len(rows), 50))):
        np.save(selected / f"source_row_{shard}.npy", part)
        (selected / f"domain_{shard}.npy").unlink()
    convert(base, tmp_path / "out-33", "--data-dir", make.disown(selected))
    found = Corpus(tmp_path / "out-33")
    assert np.array_equal(found.side("source_row", rows), taken)
    assert found.side("domain", rows) is None and found.domains == []
    assert found.manifest.report["source_row"] == "carried along from the input"


@pytest.mark.parametrize("target, folder, bos", [("mamba", "mamba/130M", False),
                                                 ("llama3_1", "llama3.1/212M", True)])  # fmt: skip
def test_the_launchers_convert_the_selected_corpus(base, old, new, tmp_path, target, folder, bos):
    base_path = tmp_path / "base path"
    rows = make.text_rows(base / "old", 40)
    make.save_corpus(base_path / SELECTED / "qwen-65", rows, base / "old")
    shutil.copytree(base / "new", base_path / "checkpoints" / folder)
    result = make.run(LAUNCHERS.format(target), base_path, MAX_LENGTH=65, WORKERS=1)
    found = Corpus(base_path / SELECTED / f"qwen-{target}-65")
    expected = [slow_convert(row, old, new, bos=bos)[:65] for row in rows]
    assert [found.row(i).tolist() for i in range(40)] == expected
    assert found.max_length == 65 and found.manifest.content["add_bos"] == bos
    assert "40 sequences" in result.stdout and "convert: 100%" in result.stderr


# Errors: exit code, what the one message says.


def refused(base: Path, code: int, *words: str, flags=(), save="") -> None:
    place = save or f"refused/{len(list(base.glob('refused/*')))}-33"
    programs.one_message(convert(base, place, *flags, code=code), code, *words)
    assert save or not (base / place / "manifest.json").exists()


@pytest.mark.parametrize("flags, words", [
    (["--target-tokenizer-path", "old"], ["tokenizer already", "TARGET_TOKENIZER_PATH"]),
    (["--data-dir", "none"], ["no corpus", "none"]),
    (["--target-tokenizer-path", "none"], ["no tokenizer", "none"]),
    (["--max-length", "1"], ["--max-length is 1"]),
])  # fmt: skip
def test_wrong_flags_are_refused(base, corpus, flags, words):
    refused(base, 2, *words, flags=flags)


@pytest.mark.parametrize("name, flags, message", [
    ("eos_token", [], "end-of-text token"),
    ("bos_token", ["--add-bos", "true"], "beginning-of-sequence token"),
])  # fmt: skip
def test_a_target_without_the_tokens_is_refused(base, corpus, tmp_path, name, flags, message):
    changed(base / "new", tmp_path / "target", {}, {name: None})
    target = ["--target-tokenizer-path", tmp_path / "target"]
    refused(base, 2, message, str(tmp_path / "target"), flags=[*target, *flags])


def test_an_unfinished_or_damaged_input_is_refused(base, corpus, tmp_path):
    copy = tmp_path / "qwen-33"
    shutil.copytree(corpus, copy)
    with open(copy / "data_1.bin", "ab") as file:
        file.write(b"12")
    refused(base, 3, "size", "data_1.bin", flags=["--data-dir", copy])
    (copy / "manifest.json").unlink()
    refused(base, 3, "unfinished", str(copy), flags=["--data-dir", copy])


def test_ids_that_the_tokenizer_lacks_are_refused(base, tmp_path):
    """A damaged corpus, or, of a corpus made by others, the wrong tokenizer."""
    rows = [np.array([5, 6]), np.array([7, 8, 9]), np.array([5, 601]), np.array([5, 6])]
    folder = make.save_corpus(tmp_path / "qwen-33", rows, base / "old", shard_size=2)
    flags = ["--data-dir", folder]
    where = f"{folder}/data_1.bin"
    refused(base, 3, "row 0 has token 601", where, "verify.py", flags=flags)
    shutil.rmtree(make.disown(folder) / "tokenizer")
    flags += ["--tokenizer-path", "old"]
    refused(base, 2, "row 0 has token 601", where, "TOKENIZER_PATH", flags=flags)


def test_the_manifests_bos_is_taken_off_and_must_be_there_and_have_a_name(base, old, new, tmp_path):
    rows = [np.array([BOS, 5, 6]), np.array([BOS, 8, EOS, 9])]
    folder = make.save_corpus(tmp_path / "qwen-33", rows, base / "old")
    change_manifest(folder, add_bos=True)
    flags = ["--data-dir", folder]
    convert(base, tmp_path / "out-33", *flags, "--add-bos", "true")
    found = Corpus(tmp_path / "out-33")
    expected = [slow_convert(row, old, new, old_bos=True, bos=True) for row in rows]
    assert [found.row(i).tolist() for i in range(2)] == expected
    shutil.rmtree(folder / "tokenizer")
    changed(base / "old", folder / "tokenizer", {}, {"bos_token": None})
    change_manifest(folder, files=True)
    refused(base, 3, "beginning-of-sequence", f"{folder}/tokenizer", flags=flags)
    rows = [np.array([BOS, 5, 6]), np.array([5, BOS, 6])]
    folder = make.save_corpus(tmp_path / "other-33", rows, base / "old")
    change_manifest(folder, add_bos=True)
    refused(base, 3, "row 1 has", f"{folder}/data_0.bin", flags=["--data-dir", folder])


def test_another_tokenizer_than_the_manifests_is_refused(base, corpus, tmp_path):
    """An adopted corpus knows its tokenizer and has no copy of it."""
    copy = tmp_path / "qwen-33"
    shutil.copytree(corpus, copy)
    shutil.rmtree(copy / "tokenizer")
    change_manifest(copy, files=True)
    flags = ["--data-dir", copy, "--tokenizer-path"]
    refused(base, 2, str(copy), "TOKENIZER_PATH", flags=[*flags, "new"])
    convert(base, tmp_path / "out-33", *flags, "old")


def test_an_output_of_something_else_is_refused(base, corpus, undisturbed, tmp_path):
    save = "undisturbed/x-33"
    refused(base, 2, "another max_length", flags=["--max-length", "20"], save=save)
    refused(base, 2, "another add_bos", flags=["--add-bos", "true"], save=save)
    rows = make.random_rows(9, 600, EOS, longest=33)
    other = make.save_corpus(tmp_path / "qwen-33", rows, base / "old", max_length=33)
    refused(base, 2, "made from another corpus", flags=["--data-dir", other], save=save)
    (base / "foreign").mkdir()
    copy_tokenizer(base / "old", base / "foreign/tokenizer")
    refused(base, 2, "did not make", save="foreign")
