"""The tokenizing launcher on real text: the rules, the table, bad input, running it twice.

.venv/bin/python -m pytest tests/tokenization/test_tokenize.py
"""

import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import zstandard

from data_utils import artefact, atomic_files
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError
from data_utils.tokenizer import load_tokenizer
from tests import make
from tests.chunk_oracle import SlowChunker

LAUNCHER = "scripts/tools/process_data/pile_qwen.sh"
SMALL = {"MAX_LENGTH": 33, "SHARD_SIZE": 500, "TOKENIZER_PATH": "tokenizer"}
CORPUS = "processed_data/pretrain/pile/qwen-33"


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    base = tmp_path_factory.mktemp("a base")
    texts = [*make.documents(60), "", "one <|endoftext|> two. " * 20, "cafe\u0301 " * 30]
    make.write_text(base / "data/pile/train", texts)
    (base / "tokenizer").symlink_to(tokenizer_folder)
    make.run(LAUNCHER, base, **SMALL)
    return base


def lines(base: Path) -> list[dict]:
    return [json.loads(line) for line in open(base / "data/pile/train/0.jsonl")]


def slow_sequences(base: Path) -> tuple[list[list[int]], list[int]]:
    """Sequences and domains in the order in which the oracle completes them."""
    tokenizer = load_tokenizer(base / "tokenizer")
    oracle, sequences, domains = SlowChunker(tokenizer, 33), [], []
    for document in lines(base):
        ids = tokenizer(document["text"], add_special_tokens=False)["input_ids"]
        source = document["meta"]["pile_set_name"]
        completed = oracle.add(source, ids)
        sequences += [list(map(int, sequence)) for sequence in completed]
        domains += ["AB".index(source)] * len(completed)
    return sequences, domains


def test_shards_are_the_oracles_sequences_shuffled_as_the_original_does(base):
    corpus = Corpus(base / CORPUS)
    sequences, domains = slow_sequences(base)
    assert len(corpus) == len(sequences) > 1000 and len(corpus.shards) > 2
    random, row = np.random.RandomState(233), 0
    for start in range(0, len(sequences), 500):
        part = sequences[start : start + 500]
        for place in random.permutation(len(part)):
            assert corpus.row(row).tolist() == part[place]
            assert corpus.side("domain", np.array([row]))[0] == domains[start + place]
            row += 1
    assert corpus.domains == ["A", "B"] and corpus.dtype == np.uint16


def test_the_table_accounts_for_every_document_and_token(base):
    manifest = artefact.read_manifest(base / CORPUS)
    table, counts = manifest.report["sources"], manifest.counts
    tokenizer = load_tokenizer(base / "tokenizer")
    for source, row in table.items():
        texts = [d["text"] for d in lines(base) if d["meta"]["pile_set_name"] == source]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        assert row["documents"] == len(texts) and row["empty"] == texts.count("")
        assert row["bytes"] == sum(len(text.encode()) for text in texts)
        assert row["tokens"] == sum(len(i) + 1 for i in ids)
        assert row["literal_eos"] == sum(make.EOS in text for text in texts)
        assert row["not_nfc"] == sum(unicodedata.normalize("NFC", t) != t for t in texts)
        assert row["tokens"] == sum(
            row[name] for name in ("sequence_tokens", "tokens_left", "tokens_dropped")
        )
    assert sum(row["not_nfc"] for row in table.values()) == 1
    assert sum(row["sequence_tokens"] for row in table.values()) == counts["tokens"]
    assert sum(row["sequences"] for row in table.values()) == counts["sequences"]


def test_run_again_it_changes_nothing_and_other_settings_are_refused(base):
    before = {p.name: p.stat().st_mtime_ns for p in (base / CORPUS).iterdir() if p.is_file()}
    assert "is there already" in make.run(LAUNCHER, base, **SMALL).stdout
    other = make.run(LAUNCHER, base, check=False, **SMALL | {"SHARD_SIZE": 400})
    assert other.returncode == 2 and "begun with another shard_size" in other.stderr
    after = {p.name: p.stat().st_mtime_ns for p in (base / CORPUS).iterdir() if p.is_file()}
    before.pop(".lock"), after.pop(".lock")
    assert before == after


def test_bos_is_in_front_of_every_sequence_and_counts(base):
    make.run(LAUNCHER, base, **SMALL, ADD_BOS="true", SAVE="bos-33")
    corpus = Corpus(base / "bos-33")
    bos = load_tokenizer(base / "tokenizer").bos_token_id
    lengths = corpus.lengths(np.arange(len(corpus)))
    assert all(corpus.row(row)[0] == bos for row in range(len(corpus))) and lengths.max() == 33


def test_a_bad_line_is_named_or_left_out_on_request(base, tmp_path):
    good = json.dumps({"text": "x. " * 99, "meta": {"pile_set_name": "A"}})
    (tmp_path / "text").mkdir()
    (tmp_path / "text/0.jsonl").write_text(f"{good}\n{{\n")
    settings = {**SMALL, "TEXT": tmp_path / "text", "SAVE": tmp_path / "c"}
    result = make.run(LAUNCHER, base, check=False, **settings)
    assert result.returncode == 2, result.stderr
    error = result.stderr.strip().splitlines()[-1]
    assert "JSON" in error and "0.jsonl" in error and "line 2" in error
    assert not (tmp_path / "c/manifest.json").exists()
    # The same command with --skip-bad-lines continues in the same folder.
    result = make.run(LAUNCHER, base, "--skip-bad-lines", "true", **settings)
    manifest = artefact.read_manifest(tmp_path / "c")
    (bad,) = manifest.report["bad_lines"]
    assert bad[:2] == ["0.jsonl", 2] and "JSON" in bad[2]
    assert manifest.counts["bad_lines"] == 1 and "1 bad lines" in result.stdout


def test_the_page_of_the_corpus(base):
    page = (base / CORPUS / "corpus.html").read_text()
    manifest = artefact.read_manifest(base / CORPUS)
    assert page.count("data:image/png;base64,") == 3
    for row in manifest.report["sources"].values():
        assert f"{row['bytes']:,}" in page and f"{row['sequences']:,}" in page
    assert "corpus.html" in [entry["name"] for entry in manifest.files]


def test_dclm_documents_name_no_source(base, tmp_path):
    (tmp_path / "text").mkdir()
    lines = [json.dumps({"text": text, "url": "u"}) for text in make.documents(20)]
    data = zstandard.compress("\n".join(lines).encode())
    (tmp_path / "text/0.jsonl.zst").write_bytes(data)
    launcher = "scripts/tools/process_data/dclm_qwen.sh"
    make.run(launcher, base, TEXT=tmp_path / "text", **SMALL)
    corpus = Corpus(base / "processed_data/dclm/qwen-33")
    assert corpus.split == "test" and corpus.domains == ["dclm"] and len(corpus) > 100


def test_text_too_short_and_no_text(base, tmp_path):
    make.write_text(tmp_path / "text", ["short"])
    flags = {"SAVE": tmp_path / "c", **SMALL}
    short = make.run(LAUNCHER, base, check=False, TEXT=tmp_path / "text", **flags)
    assert short.returncode == 2 and "too short for a single sequence" in short.stderr
    none = make.run(LAUNCHER, base, check=False, TEXT=tmp_path / "none", **flags)
    assert none.returncode == 2 and "there is no text" in none.stderr


def test_the_references_part_is_links(base):
    split = "tools/split_ref_data.py"
    flags = ["--data-dir", CORPUS, "--save", "ref/qwen-33"]
    make.run(split, base, *flags, "--shards", "1:3")
    whole, part = Corpus(base / CORPUS), Corpus(base / "ref/qwen-33")
    for number in (0, 1):
        ours, theirs = (
            c.folder / f"data_{n}.bin" for c, n in ((part, number), (whole, number + 1))
        )
        assert ours.stat().st_ino == theirs.stat().st_ino
    first = len(whole.shards[0])
    assert len(part) == len(whole) - first and np.array_equal(part.row(0), whole.row(first))
    manifest = artefact.require(part.folder, "corpus", "", contents=True)
    entries = {entry["name"]: entry["sha256"] for entry in manifest.files}
    assert entries["data_0.bin"] == atomic_files.sha256(whole.folder / "data_1.bin")
    wrong = make.run(split, base, *flags[:2], "--save", "x", "--shards", "1:99", check=False)
    assert wrong.returncode == 2
    assert all(name in wrong.stderr for name in ("REF_SHARDS", "SCORE_SHARDS", "SHARD_SIZE"))


def test_damage_in_the_corpus_is_damage_in_the_references_part(base, tmp_path):
    shutil.copytree(base / CORPUS, tmp_path / "c/qwen-33")
    data = tmp_path / "c/qwen-33/data_1.bin"
    data.write_bytes(data.read_bytes()[:-1] + b"\x7f")
    flags = ["--data-dir", "c/qwen-33", "--save", "ref/qwen-33", "--shards", "1:2"]
    make.run("tools/split_ref_data.py", tmp_path, *flags)
    with pytest.raises(ArtefactError, match="checksum does not hold in .*data_0.bin"):
        artefact.require(tmp_path / "ref/qwen-33", "corpus", "", contents=True)
