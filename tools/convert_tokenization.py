"""Convert a corpus to another tokenizer, row by row, for students of other families.

    python3 tools/convert_tokenization.py BASE_PATH [--target-tokenizer-path checkpoints/mamba/130M]

Reads BASE_PATH/processed_data/pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5/qwen-1025, writes
qwen-mamba-1025 beside it: one output per sequence, shard for shard, in the same order (the rules
are in tokenization/row_converter.py). Domains travel along. So does source_row_K.npy, the rows that
a selected corpus was taken from; a corpus without it gets its own row numbers there. Run again it
resumes after the last complete shard; the bytes do not depend on workers or interruptions.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from data_utils.artefact import Manifest
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.tokenizer import copy_tokenizer, tokenizer_fingerprint
from tokenization.convert import convert_shards
from tokenization.encode import Tokenizer, use_threads
from tokenization.row_converter import Converter

SELECTED = "processed_data/pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5"


@dataclass
class Settings:
    """Convert a corpus to another tokenizer."""

    base_path: str = flag(".", "folder with checkpoints/ and processed_data/")
    data_dir: str = flag(f"{SELECTED}/qwen-1025", "the corpus to convert")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "its tokenizer, if it has no copy of it")
    target_tokenizer_path: str = flag("checkpoints/mamba/130M", "folder with the new tokenizer")
    save: str = flag(f"{SELECTED}/qwen-mamba-1025", "folder of the converted corpus")
    max_length: int = flag(0, "tokens per new sequence, label and BOS included; 0: the corpus's")
    add_bos: bool = flag(False, "put the new tokenizer's beginning-of-sequence token before each")
    encoder: Literal["auto", "huggingface"] = flag(
        "auto", "auto: gigatoken where its ids are Hugging Face's"
    )
    workers: int = flag(0, "CPU threads, 0: all cores")

    def __post_init__(self) -> None:
        if self.max_length < 0 or self.max_length == 1 or self.workers < 0:
            raise ValueError("--max-length is 1 or below 0, or --workers below 0")
        self.workers = self.workers or len(os.sched_getaffinity(0))


def main() -> None:
    settings = parse(Settings, positional="base_path")
    use_threads(settings.workers)
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir))
    known = corpus.carried()
    old_folder = corpus.tokenizer_folder or under(base, settings.tokenizer_path)
    old = Tokenizer(old_folder, bool(known.get("add_bos")))
    new = Tokenizer(under(base, settings.target_tokenizer_path), settings.add_bos)
    fingerprints = check_tokenizers(corpus, old, new)
    max_length = settings.max_length or corpus.max_length
    output = Output(
        folder=under(base, settings.save),
        kind="corpus",
        program="tools/convert_tokenization.py",
        content={
            "tokenizer": fingerprints[1],
            "eos_id": new.eos_id,
            "max_length": max_length,
            "add_bos": new.bos_id is not None,
            "split": corpus.split,
            "converted_from": fingerprints[0],
        },
        settings=asdict(settings),
        inputs={"corpus": (corpus.folder, corpus.identity)},
    )

    def convert() -> None:
        eos, fast = known.get("eos_id", old.eos_id), settings.encoder == "auto"
        converter = Converter(corpus, old, new, eos, max_length, fast=fast)
        encoder = converter.encoder
        how = f"{encoder.name}, {settings.workers} workers {encoder.reason}"
        print(f"encoding with {how}".rstrip(), flush=True)
        finish(convert_shards(converter, output.folder), converter, output)

    print_account(output.make(convert), output.folder)


def check_tokenizers(corpus: Corpus, old: Tokenizer, new: Tokenizer) -> list[str]:
    """Fingerprints of both: the old one must be the corpus's, the new one another."""
    found, target = tokenizer_fingerprint(old.hf), tokenizer_fingerprint(new.hf)
    known = corpus.carried().get("tokenizer")
    if known is not None and found != known:
        raise InputError(
            f"the tokenizer is not that of the corpus {corpus.folder}",
            where=old.folder,
            expected=f"tokenizer {known[:12]}",
            found=found[:12],
            fix="give the tokenizer that the corpus was made with (TOKENIZER_PATH)",
        )
    if found == target:
        raise InputError(
            "the corpus has this tokenizer already",
            where=new.folder,
            fix="give another one (TARGET_TOKENIZER_PATH), or train on the corpus as it is",
        )
    if old.add_bos and old.hf.bos_token_id is None:
        raise ArtefactError(
            "the corpus has a beginning-of-sequence token that its tokenizer does not name",
            where=old.folder,
            fix="make the corpus again",
        )
    return [found, target]


def finish(progress: dict, converter: Converter, output: Output) -> None:
    """Copy the tokenizer and write the manifest."""
    print("checksums of the files", flush=True)
    corpus = converter.corpus
    total = Counter()
    for counts in progress["shards"]:
        total.update(counts)
    shape = {"shards": len(progress["shards"]), "sequences": len(corpus), "domains": corpus.domains}
    carried = corpus.side("source_row", np.arange(1)) is not None
    report = {"source_row": "carried along from the input" if carried else "row of the input"}
    tokenizer = copy_tokenizer(converter.new.folder, output.folder / "tokenizer")
    output.finish([*progress["files"], *tokenizer], {**shape, **total}, report)


def print_account(manifest: Manifest, folder: Path) -> None:
    """Say what became of the sequences."""
    c, length = manifest.counts, manifest.content["max_length"]
    print(
        f"{folder}: {c['sequences']:,} sequences, {c['tokens_before']:,} tokens before, "
        f"{c['tokens']:,} after; {c['truncated']:,} sequences were truncated to {length:,} tokens "
        f"by {c['tokens_cut']:,} tokens; {c['end_of_text_added']:,} had at most one token and got "
        f"an end-of-text; {c['with_replacement_character']:,} have U+FFFD, in the text or for "
        f"bytes that are not characters; {c.get('with_special_tokens', 0):,} hold other special "
        "tokens, kept as text."
    )


if __name__ == "__main__":
    run(main)
