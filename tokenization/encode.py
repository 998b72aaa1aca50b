"""Text to token ids, fast: gigatoken where its ids are Hugging Face's, else Hugging Face's own.

Which of the two is decided by comparing them on a sample of the real input. Texts with characters
that only one of them knows (tokenization/characters.py) always go to Hugging Face's.
"""

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_utils.errors import ArtefactError
from data_utils.shards import token_type
from data_utils.tokenizer import PROBE, bos_id, load_tokenizer, vocabulary_size
from tokenization.characters import Characters

SPOT = 2000  # characters of every batch that are compared
Encoded = tuple[np.ndarray, np.ndarray]


class Tokenizer:
    """The tokenizer in a folder; add_bos: its BOS goes before sequences.

    hf: the Hugging Face tokenizer. eos_id: id of its end-of-text. dtype: type of a stored token.
    An InputError where the files are not a tokenizer with an end-of-text token.
    """

    def __init__(self, folder: Path, add_bos: bool = False) -> None:
        self.folder, self.add_bos = folder, add_bos
        self.hf = load_tokenizer(folder)
        self.eos_id = self.hf.eos_token_id
        self.dtype = token_type(vocabulary_size(self.hf))

    @property
    def bos_id(self) -> int | None:
        """Id of the token that goes before sequences, None if none does; InputError if unnamed."""
        return bos_id(self.hf, self.folder, self.add_bos)


class Encoder:
    """Encodes batches of texts without adding special tokens.

    A literal end-of-text token in a text becomes its id, as the tokenizer says. `name` says which
    library encodes, `reason` why not gigatoken; fast=False asks for Hugging Face's.
    """

    def __init__(self, tokenizer: Tokenizer, sample: Sequence[str], *, fast: bool = True) -> None:
        self.tokenizer = tokenizer
        self.fast, self.characters = None, None
        self.reason = self._start_gigatoken(sample) if fast else "asked for by --encoder"
        self.name = "gigatoken" if self.fast else "Hugging Face tokenizers"

    def encode(self, texts: Sequence[str]) -> Encoded:
        """(ids of all texts back to back [tokens] uint32, tokens of each text [texts] int64).

        An ArtefactError where gigatoken turns out to differ.
        """
        if self.fast is not None:
            self._spot_check(texts[0][:SPOT] if texts else "")
            return self._encode_fast(texts)
        return encode_slow(self.tokenizer.hf, texts)

    def _encode_fast(self, texts: Sequence[str]) -> Encoded:
        """By gigatoken, but by Hugging Face's where the two may differ."""
        slow = self.characters.may_differ(texts)
        if not slow.any():
            return encode_fast(self.fast, texts)
        numbers = np.flatnonzero(slow)
        slow_ids, slow_lengths = encode_slow(self.tokenizer.hf, [texts[n] for n in numbers])
        others = ["" if odd else text for text, odd in zip(texts, slow, strict=True)]
        ids, lengths = encode_fast(self.fast, others)
        starts = (np.cumsum(lengths) - lengths)[numbers]
        lengths[numbers] = slow_lengths
        return np.insert(ids, np.repeat(starts, slow_lengths), slow_ids), lengths

    def _start_gigatoken(self, sample: Sequence[str]) -> str:
        """Set fast if its ids are equal on the sample; returns why not, else ""."""
        import gigatoken

        hf = self.tokenizer.hf
        try:
            # Not the file: its settings are off, tokens of other files are added, in the tokenizer.
            self.fast = gigatoken.Tokenizer.from_json(hf.backend_tokenizer.to_str())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # of many kinds, a Rust panic among them
            reason = (str(error) or type(error).__name__).splitlines()[0]
            return f"gigatoken cannot read this tokenizer ({ascii(reason)[1:-1]})"
        self.characters = Characters(
            functools.partial(encode_fast, self.fast), functools.partial(encode_slow, hf)
        )
        eos = hf.eos_token
        texts = [*sample, PROBE, eos, f"a{eos}b {eos}{eos}\n", "cafe\u0301 \u2126 \ufb01", ""]
        if all(map(np.array_equal, self._encode_fast(texts), encode_slow(hf, texts))):
            return ""
        self.fast = None
        return "gigatoken's ids differ from Hugging Face's on this input"

    def _spot_check(self, text: str) -> None:
        ours = self._encode_fast([text])[0]
        theirs = encode_slow(self.tokenizer.hf, [text])[0]
        if not np.array_equal(ours, theirs):
            raise ArtefactError(
                "gigatoken's ids differ from Hugging Face's",
                where=self.tokenizer.folder,
                expected=theirs[:20].tolist(),
                found=f"{ours[:20].tolist()} for {text[:200]!r}",
                fix="remove the output folder and run again with --encoder huggingface",
            )


def use_threads(count: int) -> None:
    """Let both libraries use this many threads; they read it when they start them."""
    os.environ["RAYON_NUM_THREADS"] = str(count)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if count > 1 else "false"


def encode_fast(fast: Any, texts: Sequence[str]) -> Encoded:
    """(ids back to back, tokens of each text) by gigatoken's tokenizer."""
    if not texts:
        return np.empty(0, np.uint32), np.empty(0, np.int64)
    layout = fast.encode_batch(list(texts), parallel=True).layout
    offsets = np.asarray(layout.offsets.data)
    return np.asarray(layout.content.data)[offsets[0] : offsets[-1]], np.diff(offsets)


def encode_slow(tokenizer: Any, texts: Sequence[str]) -> Encoded:
    """(ids back to back, tokens of each text) by a Hugging Face fast tokenizer."""
    found = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ids = [np.array(encoding.ids, np.uint32) for encoding in found]
    return np.concatenate([np.empty(0, np.uint32), *ids]), np.array([*map(len, ids)], np.int64)
