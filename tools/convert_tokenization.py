"""Convert a corpus to another tokenizer, row by row, for students of other families.

    python3 tools/convert_tokenization.py BASE_PATH [--target-tokenizer-path checkpoints/mamba/130M]

Reads BASE_PATH/processed_data/pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5/qwen-1025, writes
qwen-mamba-1025 beside it: one output a sequence, shard for shard, in the same order (the rules are
in token_converter.py). Domains travel along. So does source_row_K.npy, the rows that a selected
corpus was taken from; a corpus without it gets its own row numbers there. Run again it goes on
behind the last complete shard; the bytes do not depend on workers or interruptions.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from tqdm import tqdm

from data_utils.artefact import Manifest
from data_utils.artefact_writer import Output, read_progress, write_progress
from data_utils.corpus import Corpus, write_side
from data_utils.errors import ArtefactError, InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.shards import token_type, write_shard
from data_utils.tokenizer import (
    bos_id,
    copy_tokenizer,
    load_tokenizer,
    tokenizer_fingerprint,
    vocabulary_size,
)
from tokenization.token_converter import Block, Rules, converted

PROGRAM = "tools/convert_tokenization.py"
SELECTED = "processed_data/pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5"
ROWS = 512  # rows that are converted together


@dataclass
class Settings:
    """Convert a corpus to another tokenizer."""

    base_path: str = flag(".", "where checkpoints/ and processed_data/ lie")
    data_dir: str = flag(f"{SELECTED}/qwen-1025", "the corpus to convert")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "its tokenizer, if it has no copy of it")
    target_tokenizer_path: str = flag("checkpoints/mamba/130M", "folder with the new tokenizer")
    save: str = flag(f"{SELECTED}/qwen-mamba-1025", "folder of the converted corpus")
    max_length: int = flag(0, "tokens of a new sequence, label and BOS included; 0: the corpus's")
    add_bos: bool = flag(False, "put the new tokenizer's beginning-of-sequence token before each")
    encoder: Literal["auto", "huggingface"] = flag(
        "auto", "auto: gigatoken where its ids are Hugging Face's"
    )
    workers: int = flag(0, "CPU processes, 0: all cores")

    def __post_init__(self) -> None:
        if self.max_length < 0 or self.max_length == 1 or self.workers < 0:
            raise ValueError("--max-length is 1 or below 0, or --workers below 0")
        self.workers = self.workers or len(os.sched_getaffinity(0))


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir))
    old_folder = corpus.tokenizer_folder or under(base, settings.tokenizer_path)
    new_folder = under(base, settings.target_tokenizer_path)
    old, new = load_tokenizer(old_folder), load_tokenizer(new_folder)
    fingerprints = check_tokenizers(corpus, old, new, old_folder, new_folder)
    rules = make_rules(corpus, old, new, old_folder, new_folder, settings)
    output = Output(
        folder=under(base, settings.save),
        kind="corpus",
        program=PROGRAM,
        content={
            "tokenizer": fingerprints[1],
            "eos_id": rules.new_eos,
            "max_length": rules.max_length,
            "add_bos": settings.add_bos,
            "split": corpus.split,
            "converted_from": fingerprints[0],
        },
        settings=asdict(settings),
        inputs={"corpus": (corpus.folder, corpus.identity)},
    )
    made = output.make(
        lambda: convert(corpus, rules, token_type(vocabulary_size(new)), output, settings.workers)
    )
    print_account(made, output.folder)


def check_tokenizers(corpus: Corpus, old, new, old_folder: Path, new_folder: Path) -> list[str]:
    """Fingerprints of both tokenizers: the old one is the corpus's, the new one is another."""
    found, target = tokenizer_fingerprint(old), tokenizer_fingerprint(new)
    known = corpus.carried().get("tokenizer")
    if known is not None and found != known:
        raise InputError(
            f"the tokenizer is not that of the corpus {corpus.folder}",
            where=old_folder,
            expected=f"tokenizer {known[:12]}",
            found=found[:12],
            fix="give the tokenizer that the corpus was made with (TOKENIZER_PATH)",
        )
    if found == target:
        raise InputError(
            "the corpus has this tokenizer already",
            where=new_folder,
            fix="give another one (TARGET_TOKENIZER_PATH), or train on the corpus as it is",
        )
    return [found, target]


def make_rules(
    corpus: Corpus, old, new, old_folder: Path, new_folder: Path, settings: Settings
) -> Rules:
    """The rules of the conversion; a BOS that is wanted or said to be there must exist."""
    known = corpus.carried()
    had_bos = bool(known.get("add_bos"))
    if had_bos and old.bos_token_id is None:
        raise ArtefactError(
            "the corpus has a beginning-of-sequence token that its tokenizer does not name",
            where=old_folder,
            fix="make the corpus again",
        )
    return Rules(
        corpus=corpus.folder,
        old_tokenizer=old_folder,
        new_tokenizer=new_folder,
        old_eos=known.get("eos_id", old.eos_token_id),
        old_bos=old.bos_token_id if had_bos else None,
        new_eos=new.eos_token_id,
        new_bos=bos_id(new, new_folder, settings.add_bos),
        max_length=settings.max_length or corpus.max_length,
        encoder=settings.encoder,
    )


def convert(corpus: Corpus, rules: Rules, dtype: np.dtype, output: Output, workers: int) -> None:
    """Convert all shards that are not finished and write the manifest."""
    # shards: the counts of each finished one
    progress = read_progress(output.folder) or {"files": {}, "shards": []}
    done = len(progress["shards"])
    if done:
        print(f"going on behind shard {done - 1}")
    starts = np.cumsum([0, *(len(shard) for shard in corpus.shards)]).tolist()
    spans = list(zip(starts, starts[1:], strict=False))
    todo = spans[done:]
    ranges = [(r, min(r + ROWS, last)) for first, last in todo for r in range(first, last, ROWS)]
    blocks = with_bar(converted(rules, ranges, workers), workers, starts[done], len(corpus))
    for number, (first, last) in enumerate(todo, start=done):
        counts = write_tokens(
            output.folder / f"{corpus.split}_{number}", last - first, blocks, dtype
        )
        files = [f"{corpus.split}_{number}.bin", f"{corpus.split}_{number}.idx"]
        files += write_sides(corpus, number, first, last, output.folder)
        progress["shards"].append(counts)
        write_progress(output.folder, progress, files)
    finish(corpus, rules, progress, output)


def with_bar(found: Iterator[Block], workers: int, done: int, total: int) -> Iterator[Block]:
    """The blocks, with a bar over the rows of the corpus."""
    with tqdm(total=total, initial=done, unit="seq", unit_scale=True, desc="convert") as bar:
        for block in found:
            if bar.n == done:
                bar.write(f"encoding with {block.encoder}, {workers} workers")
            bar.update(len(block.lengths))
            yield block


def write_tokens(prefix: Path, rows: int, blocks: Iterator[Block], dtype: np.dtype) -> dict:
    """Write the next rows as one shard; what became of them, in numbers.

    Only the lengths are held: they are filled in while the tokens are written.
    """
    lengths, counts = np.zeros(rows, "<i4"), Counter()

    def tokens() -> Iterator[np.ndarray]:
        filled = 0
        while filled < rows:
            block = next(blocks)
            lengths[filled : filled + len(block.lengths)] = block.lengths
            filled += len(block.lengths)
            counts.update(block.counts)
            yield block.tokens

    write_shard(prefix, lengths, tokens(), dtype)
    return dict(counts)


def write_sides(corpus: Corpus, number: int, first: int, last: int, folder: Path) -> list[str]:
    """Write a shard's domains, if known, and its row numbers; the files' names."""
    rows = np.arange(first, last)
    source_rows = corpus.side("source_row", rows)
    sides = {
        "domain": corpus.side("domain", rows),
        "source_row": rows if source_rows is None else source_rows,
    }
    return [
        write_side(folder, name, number, values)
        for name, values in sides.items()
        if values is not None
    ]


def finish(corpus: Corpus, rules: Rules, progress: dict, output: Output) -> None:
    """Copy the tokenizer and write the manifest."""
    print("checksums of the files", flush=True)
    total = Counter()
    for counts in progress["shards"]:
        total.update(counts)
    shape = {"shards": len(progress["shards"]), "sequences": len(corpus), "domains": corpus.domains}
    carried = corpus.side("source_row", np.arange(1)) is not None
    report = {"source_row": "carried along from the input" if carried else "row of the input"}
    files = [*progress["files"]]
    files += copy_tokenizer(rules.new_tokenizer, output.folder / "tokenizer")
    output.finish(files, {**shape, **total}, report)


def print_account(manifest: Manifest, folder: Path) -> None:
    """Say what became of the sequences."""
    c, length = manifest.counts, manifest.content["max_length"]
    special = "with_special_tokens"
    print(
        f"{folder}: {c['sequences']:,} sequences, {c['tokens_before']:,} tokens before, "
        f"{c['tokens']:,} after; {c['truncated']:,} sequences were truncated to {length:,} tokens "
        f"by {c['tokens_cut']:,} tokens; {c['end_of_text_added']:,} had at most one token and got "
        f"an end-of-text; {c['with_replacement_character']:,} have U+FFFD, in the text or for "
        "bytes that are no character"
        # Corpora of earlier versions did not count them.
        + (f"; {c[special]:,} hold other special tokens, kept as text." if special in c else ".")
    )


if __name__ == "__main__":
    run(main)
