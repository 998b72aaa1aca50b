"""Tokenise text into a corpus of sequences, a million a shard.

    python3 tools/process_data/tokenize_pile.py BASE_PATH [--tokenizer-path checkpoints/qwen/1.8B]

Reads BASE_PATH/data/pile/train/*.jsonl[.zst|.gz] or .parquet, documents {"text": ..., "meta":
{"pile_set_name": ...}}; writes the corpus BASE_PATH/processed_data/pretrain/pile/qwen-1025. Run
again it goes on behind the last complete shard; the bytes depend on the text and the settings
alone, not on the number of workers nor on interruptions.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

import functools
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from tqdm import tqdm

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import check_name
from data_utils.prefetch import in_thread
from data_utils.shards import token_type
from data_utils.tokenizer import (
    bos_id,
    copy_tokenizer,
    load_tokenizer,
    sentence_ends,
    tokenizer_fingerprint,
    vocabulary_size,
)
from reports import corpus_page
from tokenization import resume_record
from tokenization.chunker import Chunker
from tokenization.encode import Encoder
from tokenization.resume_record import Work
from tokenization.shuffled_shards import ShuffledShards
from tokenization.source_table import SourceTable
from tokenization.text import BRING_TEXT, Documents
from tokenization.text_folder import text_files

BATCH = 1 << 23  # characters that are encoded and cut together
AHEAD = 3  # batches that are encoded ahead


@dataclass
class Settings:
    """Tokenise text into a corpus."""

    base_path: str = flag(".", "where data/, checkpoints/ and processed_data/ lie")
    data_dir: str = flag("data/pile/train", "folder with the text")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "folder with the tokenizer")
    save: str = flag("processed_data/pretrain/pile/qwen-1025", "folder of the corpus")
    split: str = flag("data", "prefix of the shard files: data for training, test for evaluation")
    max_length: int = flag(1025, "tokens of a sequence, label included")
    add_bos: bool = flag(False, "put the tokenizer's beginning-of-sequence token before each")
    shard_size: int = flag(1_000_000, "sequences a shard")
    source: str = flag("", "source of documents that name none; default: they are an error")
    skip_bad_lines: bool = flag(False, "leave out and list lines that hold no document")
    skip_other_files: bool = flag(False, "pass over files of other formats in --data-dir")
    workers: int = flag(0, "CPU threads or processes, 0: all cores")
    encoder: Literal["auto", "huggingface"] = flag(
        "auto", "auto: gigatoken where its ids are Hugging Face's"
    )

    def __post_init__(self) -> None:
        if self.max_length < 2 or self.shard_size < 1 or self.workers < 0:
            raise ValueError("--max-length is below 2, --shard-size below 1 or --workers below 0")
        check_name("--split", self.split)
        self.workers = self.workers or len(os.sched_getaffinity(0))


@dataclass
class Batch:
    """Documents that are encoded and cut together, and where the input stands behind them."""

    texts: list[str]
    sources: list[str]
    state: dict
    fraction: float
    bad: list[list]
    tokens: np.ndarray | None = None  # of all texts, back to back
    lengths: np.ndarray | None = None  # of each text


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    tokenizer_folder = under(base, settings.tokenizer_path)
    tokenizer = load_tokenizer(tokenizer_folder)
    bos = bos_id(tokenizer, tokenizer_folder, settings.add_bos)
    text = under(base, settings.data_dir)
    identity = artefact.identity(text, "text", BRING_TEXT)
    files = text_files(text, settings.skip_other_files)
    output = Output(
        folder=under(base, settings.save),
        kind="corpus",
        program="tools/process_data/tokenize_pile.py",
        content={
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "eos_id": tokenizer.eos_token_id,
            "max_length": settings.max_length,
            "add_bos": settings.add_bos,
            "shard_size": settings.shard_size,
            "split": settings.split,
        },
        settings=asdict(settings),
        inputs={"text": (text, identity)},
    )
    made = output.make(lambda: tokenize(files, tokenizer, bos, tokenizer_folder, output, settings))
    corpus_page.print_table(made.counts, made.report)


def tokenize(
    files: list[Path],
    tokenizer,
    bos: int | None,
    tokenizer_folder: Path,
    output: Output,
    settings: Settings,
) -> None:
    """Read all text, write all shards and the manifest; bos: put before each sequence."""
    dtype = token_type(vocabulary_size(tokenizer))
    work = Work(
        Chunker(
            sentence_ends(tokenizer),
            tokenizer.eos_token_id,
            settings.max_length,
            dtype,
            settings.add_bos,
        ),
        ShuffledShards(output.folder, settings.split, settings.shard_size, dtype, bos),
        SourceTable(tokenizer.eos_token_id),
    )
    state = resume_record.resume(output.folder, work)
    documents = Documents(files, state, source=settings.source, skip_bad=settings.skip_bad_lines)
    texts, fast = sample(files, settings), settings.encoder == "auto"
    with Encoder(tokenizer_folder, tokenizer, settings.workers, texts, fast=fast) as encoder:
        print(f"encoding with {encoder.name}, {settings.workers} workers {encoder.reason}".rstrip())
        found = in_thread(functools.partial(encoded, encoder), batches(documents), AHEAD)
        for batch in with_bar(found, documents):
            cut(batch, work)
            if work.shards.flush():
                resume_record.save(output.folder, work, batch.state)
        if encoder.slow_texts:
            print(f"{encoder.slow_texts:,} documents have characters that only Hugging Face's "
                  "tokenizer treats as the model's does: it encoded them")  # fmt: skip
    work.shards.flush(last=True)
    if work.shards.rows == 0:
        raise InputError(
            "the text is too short for a single sequence",
            where=files[0].parent,
            fix="bring more text",
        )
    finish(work, tokenizer_folder, output)


def sample(files: list[Path], settings: Settings) -> list[str]:
    """Texts from the beginnings of up to eight files, over a million characters where there are."""
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, 8).astype(int))]
    texts = []
    for path in chosen:
        size = 0
        for document in Documents([path], source=settings.source, skip_bad=True):
            texts.append(document["text"])
            size += len(texts[-1])
            if size >= (1 << 20) // len(chosen):
                break
    return texts


def batches(documents: Documents) -> Iterator[Batch]:
    """Documents in batches of BATCH characters."""
    texts, sources, size = [], [], 0
    for document in documents:
        texts.append(document["text"])
        sources.append(document["meta"]["pile_set_name"])
        size += len(texts[-1])
        if size >= BATCH:
            yield make_batch(documents, texts, sources)
            texts, sources, size = [], [], 0
    if texts or documents.bad:
        yield make_batch(documents, texts, sources)


def make_batch(documents: Documents, texts: list[str], sources: list[str]) -> Batch:
    """A batch that ends where the documents stand now."""
    bad, documents.bad = documents.bad, []
    return Batch(texts, sources, dict(documents.state), documents.fraction(), bad)


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


def cut(batch: Batch, work: Work) -> None:
    """Cut a batch into sequences, source by source."""
    ends = np.cumsum(batch.lengths)
    members: dict[str, list[int]] = {}
    for number, source in enumerate(batch.sources):
        members.setdefault(source, []).append(number)
    work.table.add_documents(batch.texts, members, batch.tokens, ends)
    work.table.bad_lines(batch.bad)
    found = []
    for source, numbers in members.items():
        documents = [batch.tokens[ends[n] - batch.lengths[n] : ends[n]] for n in numbers]
        sequences = work.chunker.add(source, documents)
        work.table.add_sequences(source, sequences, work.chunker.with_bos)
        numbered = sequences._replace(documents=np.array(numbers)[sequences.documents])
        found.append((work.table.number(source), numbered))
    if found:
        work.shards.add(found)


def finish(work: Work, tokenizer_folder: Path, output: Output) -> None:
    """Write the table's page and the manifest."""
    work.table.close(work.chunker)
    counts = {
        "shards": work.shards.shards,
        "sequences": work.shards.rows,
        "tokens": work.shards.tokens,
        "domains": list(work.table.rows),
        "bad_lines": work.table.bad_count,
    }
    report = {"sources": work.table.rows, "bad_lines": work.table.bad}
    corpus_page.write(output.folder, counts, report)
    print("checksums of the files", flush=True)
    files = work.shards.files + copy_tokenizer(tokenizer_folder, output.folder / "tokenizer")
    output.finish([*files, corpus_page.NAME], counts, report)


if __name__ == "__main__":
    run(main)
