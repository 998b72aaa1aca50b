"""Tokenize text into a corpus of sequences, a million per shard.

    python3 tools/process_data/tokenize_pile.py BASE_PATH [--tokenizer-path checkpoints/qwen/1.8B]

Reads BASE_PATH/data/pile/train/*.jsonl[.zst|.gz] or .parquet, documents {"text": ..., "meta":
{"pile_set_name": ...}}; writes the corpus BASE_PATH/processed_data/pretrain/pile/qwen-1025. Run
again it resumes after the last complete shard; the bytes depend on the text and the settings
alone, not on the number of workers nor on interruptions.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.program import run, use_project_python

    use_project_python()

import os
from dataclasses import asdict, dataclass
from typing import Literal

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import check_name
from data_utils.tokenizer import copy_tokenizer, tokenizer_fingerprint
from reports import corpus_page
from tokenization.corpus_writer import CorpusWriter
from tokenization.encode import Tokenizer, use_threads
from tokenization.text import BRING_TEXT
from tokenization.text_folder import text_files


@dataclass
class Settings:
    """Tokenize text into a corpus."""

    base_path: str = flag(".", "folder with data/, checkpoints/ and processed_data/")
    data_dir: str = flag("data/pile/train", "folder with the text")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "folder with the tokenizer")
    save: str = flag("processed_data/pretrain/pile/qwen-1025", "folder of the corpus")
    split: str = flag("data", "prefix of the shard files: data for training, test for evaluation")
    max_length: int = flag(1025, "tokens per sequence, label included")
    add_bos: bool = flag(False, "put the tokenizer's beginning-of-sequence token before each")
    shard_size: int = flag(1_000_000, "sequences per shard")
    source: str = flag("", "source of documents that name none; default: they are an error")
    skip_bad_lines: bool = flag(False, "leave out and list lines that do not hold a document")
    skip_other_files: bool = flag(False, "pass over files of other formats in --data-dir")
    workers: int = flag(0, "CPU threads, 0: all cores")
    encoder: Literal["auto", "huggingface"] = flag(
        "auto", "auto: gigatoken where its ids are Hugging Face's"
    )

    def __post_init__(self) -> None:
        if self.max_length < 2 or self.shard_size < 1 or self.workers < 0:
            raise ValueError("--max-length is below 2, --shard-size below 1 or --workers below 0")
        check_name("--split", self.split)
        self.workers = self.workers or len(os.sched_getaffinity(0))


def main() -> None:
    settings = parse(Settings, positional="base_path")
    use_threads(settings.workers)
    base = base_folder(settings.base_path)
    tokenizer = Tokenizer(under(base, settings.tokenizer_path), settings.add_bos)
    content = {
        "tokenizer": tokenizer_fingerprint(tokenizer.hf),
        "eos_id": tokenizer.eos_id,
        "max_length": settings.max_length,
        "add_bos": tokenizer.bos_id is not None,
        "shard_size": settings.shard_size,
        "split": settings.split,
    }
    text = under(base, settings.data_dir)
    output = Output(
        folder=under(base, settings.save),
        kind="corpus",
        program="tools/process_data/tokenize_pile.py",
        content=content,
        settings=asdict(settings),
        inputs={"text": (text, artefact.identity(text, "text", BRING_TEXT))},
    )
    files = text_files(text, settings.skip_other_files)
    made = output.make(lambda: tokenize(files, tokenizer, output, settings))
    corpus_page.print_table(made.counts, made.report)


def tokenize(files: list[Path], tokenizer: Tokenizer, output: Output, settings: Settings) -> None:
    """Write the shards, the page and the manifest."""
    writer = CorpusWriter(output.folder, tokenizer, settings)
    writer.write(files)
    counts = {
        "shards": writer.shards.shards,
        "sequences": writer.shards.rows,
        "tokens": writer.shards.tokens,
        "domains": list(writer.table.rows),
        "bad_lines": writer.table.bad_count,
    }
    report = {"sources": writer.table.rows, "bad_lines": writer.table.bad}
    corpus_page.write(output.folder, counts, report)
    print("checksums of the files", flush=True)
    files = writer.shards.files + copy_tokenizer(tokenizer.folder, output.folder / "tokenizer")
    output.finish([*files, corpus_page.NAME], counts, report)


if __name__ == "__main__":
    run(main)
