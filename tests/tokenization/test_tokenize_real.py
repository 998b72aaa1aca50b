"""20 MB of real mixed text against the slow chunker, with the published models' tokenizers.

.venv/bin/python -m pytest tests/tokenization/test_tokenize_real.py
"""

from collections import Counter

import numpy as np
import orjson
import pytest

from benchmarks import real_input
from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.tokenizer import load_tokenizer
from tests import make, programs
from tests.chunk_oracle import SlowChunker
from tokenization.encode import encode_slow
from tokenization.text_folder import text_files

SIZE = 20_000_000
TOKENIZERS = {
    "qwen": lambda folder: make.npm_tokenizer("qwen3", make.EOS),
    "llama3_1": lambda folder: make.npm_tokenizer("llama3_1", "<|end_of_text|>"),
    "uint16": lambda folder: make.train_tokenizer(folder / "bpe", make.documents(900), 8000),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("real text")
    assert real_input.write_text(base / "text", SIZE) >= SIZE
    lines = [
        {"text": make.SCRIPTS * 50 + f"one.{make.EOS}two ", "meta": {"pile_set_name": "scripts"}},
        {"text": "word! " * 1_100_000, "meta": {"pile_set_name": "one long document"}},
    ]
    (base / "text/999.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    return base


def slow_sequences(base, tokenizer, bos_id) -> tuple[Counter, SlowChunker]:
    """How often each (source, sequence) comes, by the rules taken token by token."""
    oracle, found = SlowChunker(tokenizer, 1025, bos_id), Counter()
    for path in text_files(base / "text"):
        documents = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        ids, lengths = encode_slow(tokenizer, [d["text"] for d in documents])
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        for document, part in zip(documents, parts, strict=True):
            source = document["meta"]["pile_set_name"]
            for sequence in oracle.add(source, part):
                found[source, np.array(sequence, np.int32).tobytes()] += 1
    return found, oracle


@pytest.mark.long
@pytest.mark.parametrize("name", TOKENIZERS)
def test_sequences_equal_the_slow_chunkers(base, name):
    folder = TOKENIZERS[name](base)
    tokenizer, with_bos = load_tokenizer(folder), name == "llama3_1"
    save = f"{name}-1025"
    flags = ["--data-dir", "text", "--tokenizer-path", folder, "--save", save]
    flags += ["--add-bos", str(with_bos), "--shard-size", "2000"]
    run = programs.call(base, "tools.process_data.tokenize_pile", base, *flags)
    assert run.code == 0 and "encoding with gigatoken" in run.output, run.errors
    corpus = Corpus(base / save)
    assert corpus.dtype == (np.uint16 if name == "uint16" else np.int32)
    rows = np.arange(len(corpus))
    sources = [corpus.domains[number] for number in corpus.side("domain", rows)]
    found = Counter(
        (source, corpus.row(row).astype(np.int32).tobytes())
        for row, source in zip(rows, sources, strict=True)
    )
    expected, oracle = slow_sequences(base, tokenizer, tokenizer.bos_token_id if with_bos else None)
    assert found == expected and len(corpus) > 4000
    table = artefact.read_manifest(base / save).report["sources"]
    for source, row in table.items():
        assert row["cut"] == oracle.cut[source] and row["tokens_dropped"] == oracle.dropped[source]
        assert row["tokens_left"] == len(oracle.buffers[source])
    assert oracle.cut["one long document"] == 1 and oracle.branches["document limit"] == 1
