"""Conversion to another tokenizer: equal to an obvious converter, whatever kills and workers do.

.venv/bin/python -m pytest tests/tokenization/test_convert_tokenization.py
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.failure_record import alive
from data_utils import artefact, artefact_writer
from data_utils.artefact_writer import Output, describe
from data_utils.corpus import Corpus
from data_utils.tokenizer import copy_tokenizer, load_tokenizer
from tests import make, programs
from tests.data_utils.test_tokenizer import STATES, changed, with_gap
from tokenization import encode, token_converter
from tokenization.token_converter import Converter, Decoder, Rules
from tools import convert_tokenization

MODULE = "tools.convert_tokenization"
LAUNCHERS = "scripts/tools/convert_tokenization/convert_tokenization_qwen_{}.sh"
SELECTED = "processed_data/pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5"
EOS, BOS = 0, 1  # of the old tokenizer; of the new one they are the other way round


def slow_convert(row, old, new, *, old_bos=False, bos=False) -> list[int]:
    """The rule, token by token, before the truncation."""
    row = [int(token) for token in row]
    if old_bos:
        assert row.pop(0) == old.bos_token_id
    parts, result = [[]], []
    for token in row:
        if token == old.eos_token_id:
            parts.append([])
        else:
            parts[-1].append(token)
    for number, part in enumerate(parts):
        text = old.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        result += [new.eos_token_id] if number > 0 else []
        result += new(text, add_special_tokens=False)["input_ids"]
    result = [new.bos_token_id, *result] if bos else result
    return result if len(result) > 1 else [*result, new.eos_token_id]


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    """BASE_PATH with tokenizers "old", "new" and "sequence" (not known to be byte-level)."""
    base = tmp_path_factory.mktemp("a base")
    shutil.copytree(tokenizer_folder, base / "old")
    make.train_tokenizer(base / "plain new", make.documents(20, seed=5), vocab_size=400)
    shutil.copytree(base / "plain new", base / "new")
    change_json(base / "new/tokenizer_config.json", eos_token="<|bos|>", bos_token=make.EOS)
    shutil.copytree(tokenizer_folder, base / "sequence")
    decoder = json.loads((base / "sequence/tokenizer.json").read_text())["decoder"]
    sequence = {"type": "Sequence", "decoders": [decoder]}
    change_json(base / "sequence/tokenizer.json", decoder=sequence)
    return base


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_manifest(folder: Path, **content: object) -> None:
    """Give a finished corpus another content."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["content"] |= content
    del manifest["fingerprint"]
    artefact.Manifest(folder, **manifest).write()


def rules(base: Path, corpus: Path, *, old="old", old_bos=False, bos=False, length=9) -> Rules:
    return Rules(
        corpus, base / old, base / "new", EOS, BOS if old_bos else None, 1, 0 if bos else None,
        length,
    )  # fmt: skip


def split(block: token_converter.Block) -> list[list[int]]:
    rows = np.split(block.tokens, np.cumsum(block.lengths)[:-1])
    return [row.tolist() for row in rows]


TOKENS = st.one_of(st.just(EOS), st.just(BOS), st.integers(2, 599), st.integers(2, 260))
ROWS = st.lists(
    st.one_of(
        st.lists(TOKENS, min_size=1, max_size=14), st.lists(st.just(EOS), min_size=1, max_size=12)
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module", params=["plain", "new BOS", "old BOS", "not byte-level"])
def converter(request, base, tmp_path_factory):
    """(a converter, what its rows need in front, the oracle's settings)."""
    bos, old_bos = request.param == "new BOS", request.param == "old BOS"
    corpus = make.save_corpus(
        tmp_path_factory.mktemp("c") / "c-65", [np.array([BOS, 5, 6])], base / "old"
    )
    old = "sequence" if request.param == "not byte-level" else "old"
    found = Converter(rules(base, corpus, old=old, bos=bos, old_bos=old_bos))
    assert found.decoder.fast == (old == "old") and found.encoder.fast
    return found, [BOS] if old_bos else [], {"bos": bos, "old_bos": old_bos}


@settings(max_examples=60)
@given(rows=ROWS)
def test_random_rows_become_what_the_obvious_converter_makes(converter, base, rows):
    """End-of-text anywhere, bytes that are no characters, rows of only end-of-text."""
    converter, front, how = converter
    old, new = load_tokenizer(base / "old"), load_tokenizer(base / "new")
    folder = Path(converter.rules.corpus).parent / "random-65"
    shutil.rmtree(folder, ignore_errors=True)
    rows = [np.array([*front, *row], np.int64) for row in rows]
    converter.corpus = Corpus(make.save_corpus(folder, rows, base / "old"))
    expected = [slow_convert(row, old, new, **how) for row in rows]
    cut = [row[:9] for row in expected]
    block = converter.convert(0, len(rows))
    assert split(block) == cut and block.lengths.tolist() == [len(row) for row in cut]
    assert block.counts["tokens_before"] == sum(map(len, rows))
    assert block.counts["tokens"] == sum(map(len, cut))
    assert block.counts["tokens_cut"] == sum(map(len, expected)) - sum(map(len, cut))
    assert block.counts["truncated"] == sum(len(row) > 9 for row in expected)


def test_rows_by_hand(base, tmp_path):
    """A trailing end-of-text stays, none is added; at most one token gets one; BOS counts."""
    old, new = load_tokenizer(base / "old"), load_tokenizer(base / "new")
    word = old("self", add_special_tokens=False)["input_ids"]
    ids = new("self", add_special_tokens=False)["input_ids"]
    letter = old("q", add_special_tokens=False)["input_ids"]
    q = new("q", add_special_tokens=False)["input_ids"]
    assert len(letter) == len(q) == 1 and (new.eos_token_id, new.bos_token_id) == (1, 0)
    rows = [[*word, *word], [*word, EOS], [EOS, *word], [EOS], letter, [EOS, EOS, EOS],
            [*word, EOS, EOS, *word], letter * 20]  # fmt: skip
    corpus = make.save_corpus(tmp_path / "c-65", [np.array(row) for row in rows], base / "old")
    twice = new("selfself", add_special_tokens=False)["input_ids"]
    many = new("q" * 20, add_special_tokens=False)["input_ids"]
    expected = [twice, [*ids, 1], [1, *ids], [1, 1], [*q, 1], [1, 1, 1], [*ids, 1, 1, *ids], many]
    block = Converter(rules(base, corpus, length=12)).convert(0, len(rows))
    assert split(block) == [row[:12] for row in expected]
    assert block.counts["end_of_text_added"] == 2
    assert block.counts["truncated"] == 1 and block.counts["tokens_cut"] == len(many) - 12
    block = Converter(rules(base, corpus, length=12, bos=True)).convert(0, len(rows))
    expected[3:5] = [1], q  # with BOS they are two tokens
    assert split(block) == [[0, *row][:12] for row in expected]
    assert block.counts["end_of_text_added"] == 0
    assert block.counts["tokens_cut"] == len(many) + 1 - 12


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("old_bos", [False, True])
def test_an_end_of_text_is_added_by_the_length_with_the_new_bos(base, tmp_path, old_bos, bos):
    """One end-of-text, one token, two; what the old row had in front, alone too, does not count."""
    old, new = load_tokenizer(base / "old"), load_tokenizer(base / "new")
    q = old("q", add_special_tokens=False)["input_ids"]
    q_new = new("q", add_special_tokens=False)["input_ids"]
    first = [[]] if old_bos else []  # no corpus has empty rows
    rows = [np.array([BOS] * old_bos + row, np.int64) for row in [*first, [EOS], q, [*q, EOS]]]
    corpus = make.save_corpus(tmp_path / "c-65", rows, base / "old")
    block = Converter(rules(base, corpus, old_bos=old_bos, bos=bos)).convert(0, len(rows))
    expected = [[1], [1, 1], [*q_new, 1], [*q_new, 1]]
    if bos:
        expected = [[0, 1], [0, 1], [0, *q_new], [0, *q_new, 1]]
    assert split(block) == expected[-len(rows) :]
    assert block.counts["end_of_text_added"] == (0 if bos else 2) + old_bos
    assert block.lengths.tolist() == [len(row) for row in split(block)]


@pytest.mark.parametrize("old_bos", [False, True])
def test_rows_with_other_special_tokens_are_counted_and_keep_them(base, tmp_path, old_bos):
    """Neither end-of-text nor the BOS in front is one; several in a row count once."""
    old = load_tokenizer(base / "old")
    shutil.copytree(base / "old", tmp_path / "old")
    value = json.loads((tmp_path / "old/tokenizer.json").read_text())
    value["added_tokens"] += [
        value["added_tokens"][0] | {"id": 600, "content": "<|im_start|>"},
        value["added_tokens"][0] | {"id": 601, "content": "<|user|>", "special": False},
    ]
    change_json(tmp_path / "old/tokenizer.json", added_tokens=value["added_tokens"])
    word = old("self", add_special_tokens=False)["input_ids"]
    rows = [word, [600, *word], [*word, EOS, 600, 600], [601, *word], [EOS], [*word, BOS],
            [600]]  # fmt: skip
    front = [BOS] if old_bos else []
    rows = [np.array([*front, *row], np.int64) for row in rows]
    corpus = make.save_corpus(tmp_path / "c-65", rows, tmp_path / "old")
    given = rules(base, corpus, old_bos=old_bos, length=65)
    converter = Converter(dataclasses.replace(given, old_tokenizer=tmp_path / "old"))
    block = converter.convert(0, len(rows))
    assert block.counts["with_special_tokens"] == 4
    tokenizer = load_tokenizer(tmp_path / "old")
    new = load_tokenizer(base / "new")
    expected = [slow_convert(row, tokenizer, new, old_bos=old_bos) for row in rows]
    assert split(block) == expected
    assert "<|im_start|>" in new.decode(expected[1]) and "<|im_start|>" in new.decode(expected[6])


def test_the_program_reports_rows_with_special_tokens(base, tmp_path):
    rows = [np.array([5, 6]), np.array([BOS, 7]), np.array([5, EOS, BOS, 7, BOS])]
    make.save_corpus(tmp_path / "qwen-33", rows, base / "old", shard_size=2)
    program = convert(base, tmp_path / "out-33", "--data-dir", tmp_path / "qwen-33")
    assert program.code == 0, program.errors
    counts = Corpus(tmp_path / "out-33").manifest.counts
    assert counts["with_special_tokens"] == 2
    assert "2 hold other special tokens" in program.output


@pytest.mark.parametrize("state", ["truncation", "padding", "dropout", "template", "add_bos_token",
                                   "split_special_tokens"])  # fmt: skip
def test_settings_in_either_tokenizers_files_change_nothing(base, corpus, tmp_path, state):
    for name in ("old", "new"):
        changed(base / name, tmp_path / name, *STATES[state])
    plain = rules(base, corpus, length=33)
    given = dataclasses.replace(
        plain, old_tokenizer=tmp_path / "old", new_tokenizer=tmp_path / "new"
    )
    expected = split(Converter(plain).convert(0, 60))
    for encoder in ("auto", "huggingface"):
        found = Converter(dataclasses.replace(given, encoder=encoder)).convert(0, 60)
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
    program = convert(base, tmp_path / "out-33", *flags)
    assert program.code == 0, program.errors
    found = Corpus(tmp_path / "out-33")
    assert found.dtype == np.dtype("<i4" if distance > 65_000 else "<u2")
    tokenizers = load_tokenizer(old), load_tokenizer(new)
    expected = [slow_convert(row, *tokenizers)[:33] for row in rows]
    assert [found.row(i).tolist() for i in range(30)] == expected
    assert max(map(max, expected)) >= 400


def test_characters_cut_in_two_are_counted(base, tmp_path):
    old = load_tokenizer(base / "old")
    ids = old("東京!", add_special_tokens=False)["input_ids"]
    rows = [np.array(ids), np.array(ids[:1] + [EOS] + ids[1:])]
    assert "\ufffd" in old.decode(ids[:1])
    corpus = make.save_corpus(tmp_path / "c-65", rows, base / "old")
    block = Converter(rules(base, corpus, length=65)).convert(0, 2)
    assert block.counts["with_replacement_character"] == 1


@settings(max_examples=60)
@given(parts=st.lists(st.lists(st.integers(0, 601), max_size=20), min_size=1, max_size=5))
def test_the_gather_decodes_like_the_tokenizer(base, parts):
    """On ids that make no characters and added tokens outside the byte alphabet, too."""
    tokenizer = load_tokenizer(base / "old")
    assert tokenizer.add_tokens(["    ", "é 東"]) == 2
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    starts = ends - [len(part) for part in parts]
    tokens = np.array([i for part in parts for i in part], np.uint32)
    texts = [tokenizer.decode(part, clean_up_tokenization_spaces=False) for part in parts]
    decoder = Decoder(tokenizer)
    assert decoder.fast and decoder.decode(tokens, starts, ends) == texts


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
    ids = [i for text in texts for i in [*old(text)["input_ids"], old.eos_token_id]]
    rows = np.split(np.array(ids), range(129, len(ids), 129))
    corpus = make.save_corpus(tmp_path / "in/qwen-129", rows, qwen, max_length=129, shard_size=200)
    flags = ["--data-dir", corpus, "--target-tokenizer-path", folder, "--save", "out/x-129"]
    program = programs.call(tmp_path, MODULE, tmp_path, *flags, "--add-bos", bos, "--workers", 1)
    assert program.code == 0, program.errors
    assert "encoding with gigatoken" in program.output + program.errors
    found = Corpus(tmp_path / "out/x-129")
    assert found.dtype == np.dtype("<i4" if bos else "<u2")
    expected = [slow_convert(row, old, new, bos=bos) for row in rows]
    for number, row in enumerate(expected):
        assert found.row(number).tolist() == row[:129], number
    counts = found.manifest.counts
    assert counts["truncated"] == sum(len(row) > 129 for row in expected) > 0
    assert counts["tokens_cut"] == sum(max(len(row) - 129, 0) for row in expected) > 0
    assert counts["tokens_before"] == len(ids) and len(found.shards) > 1
    shown = f"{counts['truncated']:,} sequences were truncated to 129 tokens by "
    assert shown + f"{counts['tokens_cut']:,} tokens" in program.output


# Runs of the whole program on a corpus of five shards.


@pytest.fixture(scope="module")
def corpus(base) -> Path:
    rows = make.text_rows(base / "old", 230, longest=33, seed=2)
    return make.save_corpus(
        base / "in/qwen-33", rows, base / "old", max_length=33, shard_size=50, split="data"
    )


FLAGS = ["--data-dir", "in/qwen-33", "--target-tokenizer-path", "new", "--workers", "1"]


def convert(base: Path, save: str, *flags: object):
    return programs.call(base, MODULE, base, *FLAGS, "--save", save, *flags)


@pytest.fixture(scope="module")
def undisturbed(base, corpus) -> dict[str, str]:
    program = convert(base, "undisturbed/x-33")
    assert program.code == 0, program.errors
    return make.content(base / "undisturbed/x-33")


def test_the_program_converts_shard_for_shard(base, corpus, undisturbed):
    given, found = Corpus(corpus), Corpus(base / "undisturbed/x-33")
    old, new = load_tokenizer(base / "old"), load_tokenizer(base / "new")
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
    (selected / "manifest.json").unlink()
    (selected / "settings.json").unlink()  # now it is one made by others
    program = convert(base, tmp_path / "out-33", "--data-dir", selected)
    assert program.code == 0, program.errors
    found = Corpus(tmp_path / "out-33")
    assert np.array_equal(found.side("source_row", rows), taken)
    assert found.side("domain", rows) is None and found.domains == []
    assert found.manifest.report["source_row"] == "carried along from the input"


@pytest.mark.parametrize("flags", [["--workers", "2"], ["--encoder", "huggingface"]])
def test_workers_and_encoder_change_nothing(base, undisturbed, flags):
    save = "-".join(["other", *flags, "33"])
    program = convert(base, save, *flags)
    assert program.code == 0, program.errors
    assert make.content(base / save) == undisturbed
    again = convert(base, save, *flags)
    assert again.code == 0 and "is there already" in again.output
    assert "sequences were truncated to 33 tokens" in again.output


# Phases of a run: where a kill may come, before and after the call.
PHASES = {
    "reading": (Corpus, "runs"),
    "encoding": (encode.Encoder, "encode"),
    "joining": (token_converter, "join"),
    "writing a shard": (convert_tokenization, "write_shard"),
    "writing row numbers": (convert_tokenization, "write_sides"),
    "renaming a file": (artefact_writer.os, "replace"),
    "recording progress": (convert_tokenization, "write_progress"),
    "the tokenizer": (convert_tokenization, "copy_tokenizer"),
    "checksums": (artefact_writer, "describe"),
    "the manifest": (Output, "finish"),
}
ONCE = ("the tokenizer", "the manifest")  # called once a run


def run_and_die(words: list[str], phase: str, moment: int) -> None:
    """The program's main() with small blocks; moment: half calls of the phase before the kill."""
    convert_tokenization.ROWS = 16
    if phase:
        programs.kill_at(*PHASES[phase], moment)
    programs._main(MODULE, words, {}, Path(words[0]) / "log.out")


def start(base: Path, save: str, phase: str = "", moment: int = 0) -> int:
    for name in ("log.out", "log.err"):
        (base / name).touch()
    words = [str(base), *FLAGS, "--save", save]
    process = programs.CONTEXT.Process(target=run_and_die, args=(words, phase, moment))
    process.start()
    process.join(120)
    return process.exitcode


def test_killed_in_every_phase_it_ends_with_the_same_bytes(base, undisturbed):
    records = programs.kill_in_every_phase(
        lambda kill: start(base, "killed/x-33", *kill),
        base / "killed/x-33", undisturbed, PHASES, ONCE, draws=(7, 10, 5), kills=12,
    )  # fmt: skip
    assert records > 3


def test_a_finished_shard_is_never_made_again(base, undisturbed):
    folder = base / "resumed/x-33"
    assert start(base, "resumed/x-33", "writing a shard", 6) == -signal.SIGKILL
    before = {path.name: path.stat().st_ino for path in folder.glob("*_[012].*")}
    assert len(before) == 3 * 4
    assert start(base, "resumed/x-33") == 0
    after = {path.name: path.stat().st_ino for path in folder.glob("*_[012].*")}
    assert before == after and make.content(folder) == undisturbed


@pytest.mark.parametrize("damage", ["progress.json", "data_0.bin"])
def test_damage_between_the_starts_is_an_error(base, corpus, damage):
    folder = base / f"damaged {damage}/x-33"
    assert start(base, str(folder), "writing a shard", 4) == -signal.SIGKILL
    path = folder / damage
    path.write_bytes(path.read_bytes()[:-20])
    program = convert(base, folder)
    assert program.code == 3
    assert str(path) in program.errors and "Fix: remove" in program.errors


def start_with_workers(base: Path, save: str) -> programs.Program:
    """A run of minutes with two workers, up to its first block."""
    folder = base / "long/qwen-33"
    if not folder.exists():
        rows = make.text_rows(base / "old", 100, longest=33) * 2000
        make.save_corpus(folder, rows, base / "old", max_length=33, shard_size=20_000)
    flags = ["--data-dir", folder, "--workers", 2, "--encoder", "huggingface"]
    program = programs.start(base, MODULE, base, *FLAGS, *flags, "--save", save)
    deadline = time.monotonic() + 60
    while "encoding with" not in program.output + program.errors:
        assert time.monotonic() < deadline and program.running, program.errors
        time.sleep(0.02)
    return program


def children(pid: int) -> list[int]:
    """Processes that pid started and that still run."""
    return [int(i) for i in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_workers_end_with_their_parent(base):
    program = start_with_workers(base, "orphans/x-33")
    workers = children(program.pid)
    assert len(workers) >= 2
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    deadline = time.monotonic() + 10
    while (left := [worker for worker in workers if alive(worker)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def test_a_killed_worker_is_an_error_of_the_machine(base):
    program = start_with_workers(base, "lost worker/x-33")
    spawned = [i for i in children(program.pid)
               if b"spawn_main" in Path(f"/proc/{i}/cmdline").read_bytes()]  # fmt: skip
    os.kill(spawned[0], signal.SIGKILL)
    program.wait()
    assert program.code == 4 and "fewer WORKERS" in program.errors
    assert "Traceback" not in program.errors


@pytest.mark.parametrize("target, folder, bos", [("mamba", "mamba/130M", False),
                                                 ("llama3_1", "llama3.1/212M", True)])  # fmt: skip
def test_the_launchers_convert_the_selected_corpus(base, tmp_path, target, folder, bos):
    base_path = tmp_path / "base path"
    rows = make.text_rows(base / "old", 40)
    make.save_corpus(base_path / SELECTED / "qwen-65", rows, base / "old")
    shutil.copytree(base / "new", base_path / "checkpoints" / folder)
    result = make.run(LAUNCHERS.format(target), base_path, MAX_LENGTH=65, WORKERS=1)
    found = Corpus(base_path / SELECTED / f"qwen-{target}-65")
    old, new = load_tokenizer(base / "old"), load_tokenizer(base / "new")
    expected = [slow_convert(row, old, new, bos=bos)[:65] for row in rows]
    assert [found.row(i).tolist() for i in range(40)] == expected
    assert found.max_length == 65 and found.manifest.content["add_bos"] == bos
    assert re.search(r"40 sequences, [\d,]+ tokens before", result.stdout)
    assert "convert: 100%" in result.stderr


# Errors: exit code, what the one message says.


def refused(base: Path, code: int, *words: str, flags=(), save="") -> None:
    place = save or f"refused/{len(list(base.glob('refused/*')))}-33"
    program = convert(base, place, *flags)
    assert program.code == code, program.errors
    assert "Traceback" not in program.errors and program.errors.count("ERROR") == 1
    for word in (*words, "Fix: "):
        assert word in program.errors
    assert save or not (base / place / "manifest.json").exists()


def test_the_same_tokenizer_is_refused(base, corpus):
    refused(base, 2, "has this tokenizer already", flags=["--target-tokenizer-path", "old"])


@pytest.mark.parametrize("name, flags, message", [
    ("eos_token", [], "no end-of-text token"),
    ("bos_token", ["--add-bos", "true"], "no beginning-of-sequence token"),
])  # fmt: skip
def test_a_target_without_the_tokens_is_refused(base, corpus, tmp_path, name, flags, message):
    shutil.copytree(base / "new", tmp_path / "target")
    change_json(tmp_path / "target/tokenizer_config.json", **{name: None})
    target = ["--target-tokenizer-path", tmp_path / "target"]
    refused(base, 2, message, str(tmp_path / "target"), flags=[*target, *flags])


def test_no_corpus_and_no_tokenizer_are_refused(base, corpus):
    refused(base, 2, "there is no corpus", "none", flags=["--data-dir", "none"])
    refused(base, 2, "there is no tokenizer", flags=["--target-tokenizer-path", "none"])
    refused(base, 2, "--max-length is 1", flags=["--max-length", "1"])


def test_an_unfinished_or_damaged_input_is_refused(base, corpus, tmp_path):
    copy = tmp_path / "qwen-33"
    shutil.copytree(corpus, copy)
    with open(copy / "data_1.bin", "ab") as file:
        file.write(b"12")
    refused(base, 3, "wrong size", "data_1.bin", flags=["--data-dir", copy])
    (copy / "manifest.json").unlink()
    refused(base, 3, "is unfinished", str(copy), flags=["--data-dir", copy])


@pytest.mark.parametrize("workers", [1, 2])
def test_ids_that_the_tokenizer_lacks_are_refused(base, tmp_path, workers):
    """A damaged corpus, or, of a corpus made by others, the wrong tokenizer."""
    rows = [np.array([5, 6]), np.array([7, 8, 9]), np.array([5, 601]), np.array([5, 6])]
    folder = make.save_corpus(tmp_path / "qwen-33", rows, base / "old", shard_size=2)
    flags = ["--data-dir", folder, "--workers", workers]
    where = f"{folder}/data_1.bin"
    refused(base, 3, "row 0 has token 601", where, "verify.py", flags=flags)
    for name in ("manifest.json", "settings.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "tokenizer")
    flags += ["--tokenizer-path", "old"]
    refused(base, 2, "row 0 has token 601", where, "TOKENIZER_PATH", flags=flags)


def test_a_row_without_the_bos_that_the_manifest_promises_is_refused(base, tmp_path):
    rows = [np.array([BOS, 5, 6]), np.array([5, BOS, 6])]
    folder = make.save_corpus(tmp_path / "qwen-33", rows, base / "old")
    change_manifest(folder, add_bos=True)
    message = "row 1 has no beginning-of-sequence token"
    refused(base, 3, message, f"{folder}/data_0.bin", flags=["--data-dir", folder])


def test_the_manifests_bos_is_taken_off_and_must_have_a_name(base, tmp_path):
    rows = [np.array([BOS, 5, 6]), np.array([BOS, 8, EOS, 9])]
    folder = make.save_corpus(tmp_path / "qwen-33", rows, base / "old")
    change_manifest(folder, add_bos=True)
    program = convert(base, tmp_path / "out-33", "--data-dir", folder, "--add-bos", "true")
    assert program.code == 0, program.errors
    old, new = load_tokenizer(base / "old"), load_tokenizer(base / "new")
    found = Corpus(tmp_path / "out-33")
    expected = [slow_convert(row, old, new, old_bos=True, bos=True) for row in rows]
    assert [found.row(i).tolist() for i in range(2)] == expected
    change_json(folder / "tokenizer/tokenizer_config.json", bos_token=None)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [describe(folder, entry["name"]) for entry in manifest["files"]]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    change_manifest(folder)
    refused(base, 3, "does not name", flags=["--data-dir", folder])


def test_another_tokenizer_than_the_manifests_is_refused(base, corpus, tmp_path):
    """An adopted corpus knows its tokenizer and has no copy of it."""
    copy = tmp_path / "qwen-33"
    shutil.copytree(corpus, copy)
    shutil.rmtree(copy / "tokenizer")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"] = [e for e in manifest["files"] if "tokenizer" not in e["name"]]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    change_manifest(copy)
    flags = ["--data-dir", copy, "--tokenizer-path"]
    refused(base, 2, "not that of the corpus", "TOKENIZER_PATH", flags=[*flags, "new"])
    program = convert(base, tmp_path / "out-33", *flags, "old")
    assert program.code == 0, program.errors


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
