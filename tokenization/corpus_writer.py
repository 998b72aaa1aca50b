"""Text to the shards of a corpus: read, encode, cut, shuffle, write; resumable after each shard.

progress.npz in the corpus's folder holds what the finished shards do not: the buffers of the
sources, the sequences that wait for the next shard, the table, and the place in the input. It is
written after the shards it counts, atomically: what was begun after it is done again, with the
same bytes.
"""

import functools
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_utils import atomic_files
from data_utils.artefact_writer import check_finished, damaged
from data_utils.errors import InputError
from data_utils.prefetch import in_thread
from data_utils.tokenizer import sentence_ends
from tokenization.chunker import Chunker
from tokenization.encode import Encoder, Tokenizer
from tokenization.shuffled_shards import ShuffledShards
from tokenization.source_table import SourceTable
from tokenization.text import BadDocument, Documents

RECORD = "progress.npz"
BATCH = 1 << 23  # characters that are encoded and cut together
AHEAD = 3  # batches that are encoded ahead
SAMPLE = 1 << 20  # characters that the Encoder compares its two libraries on


@dataclass
class Batch:
    """Documents that are encoded and cut together, and where the input stands after them."""

    texts: list[str]
    sources: list[str]
    bad: list[BadDocument]  # lines that were skipped
    state: dict
    fraction: float
    tokens: np.ndarray | None = None  # of all texts, back to back
    lengths: np.ndarray | None = None  # of each text


class CorpusWriter:
    """The shards of a corpus in folder: all that changes while text is tokenized.

    settings: those of tools/process_data/tokenize_pile.py.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, settings: Any) -> None:
        self.folder, self.tokenizer, self.settings = folder, tokenizer, settings
        eos, bos, dtype = tokenizer.eos_id, tokenizer.bos_id, tokenizer.dtype
        tables, with_bos = sentence_ends(tokenizer.hf), bos is not None
        self.chunker = Chunker(tables, eos, settings.max_length, dtype, with_bos)
        self.shards = ShuffledShards(folder, settings.split, settings.shard_size, dtype, bos)
        self.table = SourceTable(eos)

    def write(self, files: list[Path]) -> None:
        """Read all text and write all shards; an InputError if it is too short for one sequence."""
        settings = self.settings
        state = self.resume()
        documents = Documents(
            files, state, source=settings.source, skip_bad=settings.skip_bad_lines
        )
        texts, fast = sample(files, settings.source), settings.encoder == "auto"
        encoder = Encoder(self.tokenizer, texts, fast=fast)
        how = f"{encoder.name}, {settings.workers} workers {encoder.reason}"
        print(f"encoding with {how}".rstrip())
        found = in_thread(functools.partial(encoded, encoder), batches(documents), AHEAD)
        for batch in with_bar(found, documents):
            self.cut(batch)
            if self.shards.flush():
                self.save(batch.state)
        self.shards.flush(last=True)
        if self.shards.rows == 0:
            raise InputError(
                "the text is too short for a single sequence",
                where=files[0].parent,
                fix="bring more text",
            )
        self.table.close(self.chunker)

    def cut(self, batch: Batch) -> None:
        """Cut a batch into sequences, source by source, and count it."""
        ends = np.cumsum(batch.lengths)
        members: dict[str, list[int]] = {}
        for number, source in enumerate(batch.sources):
            members.setdefault(source, []).append(number)
        self.table.add_documents(batch.texts, members, batch.tokens, ends)
        self.table.add_bad(batch.bad)
        found = []
        for source, numbers in members.items():
            documents = [batch.tokens[ends[n] - batch.lengths[n] : ends[n]] for n in numbers]
            sequences = self.chunker.add(source, documents)
            self.table.add_sequences(source, sequences, self.chunker.with_bos)
            numbered = sequences._replace(documents=np.array(numbers)[sequences.documents])
            found.append((self.table.number(source), numbered))
        if found:
            self.shards.add(found)

    def save(self, state: dict) -> None:
        """Record the work right after a flush; state: the input's."""
        buffers = self.chunker.buffers
        words = {
            "state": state,
            "sources": list(buffers),
            "documents_cut": self.chunker.documents_cut,
            "tokens_dropped": self.chunker.tokens_dropped,
            "table": self.table.state(),
            "sizes": [(self.folder / name).stat().st_size for name in self.shards.files],
        }
        arrays = self.shards.state()
        arrays |= {f"buffer_{number}": buffer for number, buffer in enumerate(buffers.values())}
        with atomic_files.atomic_file(self.folder / RECORD) as file:
            np.savez(file, words=np.array(json.dumps(words)), **arrays)

    def resume(self) -> dict | None:
        """Take up recorded work; returns the input's state, None where nothing was recorded.

        An ArtefactError where the record or a shard that it counts is damaged.
        """
        path = self.folder / RECORD
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                words = json.loads(str(arrays["words"]))
                self.shards.resume({name: arrays[name] for name in ShuffledShards.STATE})
                for number, source in enumerate(words["sources"]):
                    self.chunker.buffers[source] = arrays[f"buffer_{number}"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise damaged("the record of progress is damaged", path) from error
        self.chunker.documents_cut = Counter(words["documents_cut"])
        self.chunker.tokens_dropped = Counter(words["tokens_dropped"])
        self.table.resume(words["table"])
        check_finished(self.folder, dict(zip(self.shards.files, words["sizes"], strict=True)))
        print(f"resuming after shard {self.shards.shards - 1}, {self.shards.rows:,} sequences")
        return words["state"]


def sample(files: list[Path], source: str) -> list[str]:
    """Texts from the beginnings of up to eight files, SAMPLE characters in all if there are."""
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, 8).astype(int))]
    texts = []
    for path in chosen:
        size = 0
        for document in Documents([path], source=source, skip_bad=True):
            if isinstance(document, BadDocument):
                continue
            texts.append(document["text"])
            size += len(texts[-1])
            if size >= SAMPLE // len(chosen):
                break
    return texts


def batches(documents: Documents) -> Iterator[Batch]:
    """Documents in batches of BATCH characters."""

    def batch() -> Batch:
        return Batch(texts, sources, bad, dict(documents.state), documents.fraction())

    texts, sources, bad, size = [], [], [], 0
    for document in documents:
        if isinstance(document, BadDocument):
            bad.append(document)
            continue
        texts.append(document["text"])
        sources.append(document["meta"]["pile_set_name"])
        size += len(texts[-1])
        if size >= BATCH:
            yield batch()
            texts, sources, bad, size = [], [], [], 0
    if texts or bad:
        yield batch()


def encoded(encoder: Encoder, batch: Batch) -> Batch:
    """The batch with its tokens."""
    batch.tokens, batch.lengths = encoder.encode(batch.texts)
    return batch


def with_bar(found: Iterator[Batch], documents: Documents) -> Iterator[Batch]:
    """The batches, with a bar over the bytes of the input."""
    total = sum(documents.sizes)
    start = round(documents.fraction() * total)
    with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc="text") as bar:
        for batch in found:
            yield batch
            bar.update(round(batch.fraction * total) - bar.n)
