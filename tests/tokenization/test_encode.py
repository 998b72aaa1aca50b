"""Encoding: gigatoken with Hugging Face's tokenizer where it may differ gives the latter's ids.

.venv/bin/python -m pytest tests/tokenization/test_encode.py
"""

import shutil
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_utils.errors import InputError
from data_utils.tokenizer import load_tokenizer
from tests import make
from tokenization.characters import DIFFERENT, Characters
from tokenization.encode import Encoder, Tokenizer, encode_fast, encode_slow

# The first is a mark of Unicode 11, which the other two are reordered around.
NEW_MARK = "a\u07fd\u07f3 \u07f3\u07fd"


def by_code(odd: str = ""):
    """An encoder of characters to their code points; those in odd it normalises away."""

    def encode(texts):
        found = [[ord(c) for c in text if c not in odd] for text in texts]
        lengths = np.array([len(ids) for ids in found], np.int64)
        return np.array([i for ids in found for i in ids], np.uint32), lengths

    return encode


ODD = "é\u0301\u07fd東"


@pytest.fixture(scope="module")
def characters():
    return Characters(by_code(), by_code(ODD))


@settings(max_examples=300)
@given(texts=st.lists(st.text(max_size=20), max_size=5))
def test_texts_that_the_encoders_treat_differently_are_found(characters, texts):
    texts = [*texts, *texts]  # the second time from memory
    for text, found in zip(texts, characters.may_differ(texts), strict=True):
        expected = any(c in ODD or unicodedata.category(c) == "Cn" for c in text)
        # A character whose decomposition has an odd one is odd.
        expected |= any(c in ODD for c in unicodedata.normalize("NFD", text))
        if expected or text.isascii():
            assert found == expected


def test_a_pair_that_only_one_encoder_composes_is_found():
    def composing(texts):
        return by_code()([text.replace("a\u030a", "å") for text in texts])

    characters = Characters(composing, by_code())
    assert characters.kinds[ord("\u030a")] == DIFFERENT
    assert characters.may_differ(["xa\u030ay", "über", "x"]).tolist() == [True, False, False]


@pytest.fixture(scope="module")
def qwen():
    folder = make.npm_tokenizer("qwen3", make.EOS)
    encoder = Encoder(Tokenizer(folder), make.documents(3))
    assert encoder.name == "gigatoken", encoder.reason
    return encoder.tokenizer.hf, encoder


def test_new_combining_marks_go_to_hugging_face(qwen):
    tokenizer, encoder = qwen
    texts = ["plain. ", NEW_MARK, "", f"é {NEW_MARK} e\u0301", "cafe\u0301", NEW_MARK * 3]
    expected = encode_slow(tokenizer, texts)
    assert not np.array_equal(encode_fast(encoder.fast, texts)[0], expected[0])
    assert all(map(np.array_equal, encoder.encode(texts), expected))
    assert encoder.characters.may_differ(texts).sum() == 3


def test_characters_of_all_scripts_are_encoded_alike(qwen):
    """Whatever only one of the two knows; with marks around it, and after an apostrophe."""
    tokenizer, encoder = qwen
    codes = [*range(0x80, 0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x12000)]
    for start in range(0, len(codes), 4000):
        texts = [f"x{c}1 {c}\u0334\u0301{c}.\n'{c}" for c in map(chr, codes[start : start + 4000])]
        assert all(map(np.array_equal, encoder.encode(texts), encode_slow(tokenizer, texts)))


def test_a_damaged_configuration_beside_a_tokenizer_is_named(tmp_path, tokenizer_folder):
    shutil.copytree(tokenizer_folder, tmp_path / "broken")
    (tmp_path / "broken/config.json").write_text("{")
    with pytest.raises(InputError, match=r"JSON .* in .*broken/config\.json"):
        load_tokenizer(tmp_path / "broken")
