"""Text to token ids, fast: gigatoken where its ids are Hugging Face's, else Hugging Face's own.

Which of the two is decided by comparing them on a sample of the real input. Texts with characters
that only one of them knows (tokenization/characters.py) go to Hugging Face's all the same.
"""

import functools
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from data_utils.errors import ArtefactError
from data_utils.program import die_with_parent
from data_utils.tokenizer import PROBE, load_tokenizer
from tokenization.characters import Characters

SAMPLE = 1 << 20  # characters that are compared at the start
SPOT = 2000  # characters of every batch that are compared later on
TASK = 1 << 18  # characters a task of the process pool
Encoded = tuple[np.ndarray, np.ndarray]


class Encoder:
    """Encodes batches of texts without special tokens of its own.

    A literal end-of-text token in a text becomes its id, as the tokenizer says. Use it in a with
    statement: it may hold processes. `name` says which tokenizer program encodes, `reason` why not
    gigatoken; fast=False asks for Hugging Face's.
    """

    def __init__(
        self, folder: Path, tokenizer, workers: int, sample: Sequence[str], *, fast: bool = True
    ) -> None:
        self.folder, self.workers, self.tokenizer = folder, workers, tokenizer
        self.pool: ProcessPoolExecutor | None = None
        self.fast, self.characters = None, None
        self.slow_texts = 0  # that gigatoken might have encoded otherwise
        self.reason = self._start_gigatoken(sample) if fast else "asked for by --encoder"
        self.name = "gigatoken" if self.fast else "Hugging Face tokenizers"

    def __enter__(self) -> "Encoder":
        if self.fast is None and self.workers > 1:
            self.pool = ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                initializer=_start_worker,
                initargs=(self.folder, os.getpid()),
            )
            # Here, not at the first encode(): they die with the thread that starts them.
            for _ in range(self.workers):
                self.pool.submit(int)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def encode(self, texts: Sequence[str]) -> Encoded:
        """(ids of all texts back to back [tokens] uint32, tokens of each text [texts] int64)."""
        if self.fast is not None:
            self._spot_check(texts[0][:SPOT] if texts else "")
            slow = self.characters.may_differ(texts)
            self.slow_texts += int(slow.sum())
            return self._encode_fast(texts, slow)
        if self.pool is None:
            return encode_slow(self.tokenizer, texts)
        parts = list(self.pool.map(_encode_in_worker, _tasks(texts)))
        parts = parts or [(np.empty(0, np.uint32), np.empty(0, np.int64))]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _encode_fast(self, texts: Sequence[str], slow: np.ndarray) -> Encoded:
        """By gigatoken, but by Hugging Face's where slow [texts] says so."""
        if not slow.any():
            return encode_fast(self.fast, texts)
        numbers = np.flatnonzero(slow)
        slow_ids, slow_lengths = encode_slow(self.tokenizer, [texts[n] for n in numbers])
        others = ["" if odd else text for text, odd in zip(texts, slow, strict=True)]
        ids, lengths = encode_fast(self.fast, others)
        starts = (np.cumsum(lengths) - lengths)[numbers]
        lengths[numbers] = slow_lengths
        return np.insert(ids, np.repeat(starts, slow_lengths), slow_ids), lengths

    def _start_gigatoken(self, sample: Sequence[str]) -> str:
        """Set fast if its ids are equal on the sample; why not, else ""."""
        os.environ["RAYON_NUM_THREADS"] = str(self.workers)  # read when its threads start
        import gigatoken

        try:
            # Not the file: its settings are off, tokens of other files are added, in the tokenizer.
            fast = gigatoken.Tokenizer.from_json(self.tokenizer.backend_tokenizer.to_str())
        # It refuses with many kinds of exceptions, a Rust panic among them.
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            return f"gigatoken cannot read this tokenizer ({ascii(reason)[1:-1]})"
        self.fast = fast
        self.characters = Characters(
            functools.partial(encode_fast, fast), functools.partial(encode_slow, self.tokenizer)
        )
        eos = self.tokenizer.eos_token
        texts = [*sample, PROBE, eos, f"a{eos}b {eos}{eos}\n", "cafe\u0301 \u2126 \ufb01", ""]
        ours = self._encode_fast(texts, self.characters.may_differ(texts))
        if all(map(np.array_equal, ours, encode_slow(self.tokenizer, texts))):
            return ""
        self.fast = None
        return "gigatoken's ids differ from Hugging Face's on this input"

    def _spot_check(self, text: str) -> None:
        ours = self._encode_fast([text], self.characters.may_differ([text]))[0]
        theirs = encode_slow(self.tokenizer, [text])[0]
        if not np.array_equal(ours, theirs):
            raise ArtefactError(
                "gigatoken's ids differ from Hugging Face's",
                where=self.folder,
                expected=theirs[:20].tolist(),
                found=f"{ours[:20].tolist()} for {text[:200]!r}",
                fix="remove the output folder and run again with --encoder huggingface",
            )


def encode_fast(fast, texts: Sequence[str]) -> Encoded:
    """Encoded texts by gigatoken's tokenizer."""
    if not texts:
        return np.empty(0, np.uint32), np.empty(0, np.int64)
    layout = fast.encode_batch(list(texts), parallel=True).layout
    offsets = np.asarray(layout.offsets.data)
    return np.asarray(layout.content.data)[offsets[0] : offsets[-1]], np.diff(offsets)


def encode_slow(tokenizer, texts: Sequence[str]) -> Encoded:
    """The same by a Hugging Face fast tokenizer."""
    found = tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    lengths = np.array([len(encoding) for encoding in found], np.int64)
    ids = np.empty(lengths.sum(), np.uint32)
    for encoding, end, length in zip(found, np.cumsum(lengths), lengths, strict=True):
        ids[end - length : end] = encoding.ids
    return ids, lengths


def _tasks(texts: Sequence[str]) -> Iterator[list[str]]:
    task, size = [], 0
    for text in texts:
        task.append(text)
        size += len(text)
        if size >= TASK:
            yield task
            task, size = [], 0
    if task:
        yield task


_worker_tokenizer = None


def _start_worker(folder: Path, parent: int) -> None:
    global _worker_tokenizer
    die_with_parent(parent)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    _worker_tokenizer = load_tokenizer(folder)


def _encode_in_worker(texts: list[str]) -> Encoded:
    return encode_slow(_worker_tokenizer, texts)
