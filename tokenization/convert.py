"""The shards of a corpus in another tokenizer; resumable after each shard.

progress.json in the new corpus's folder holds the finished files and the counts of each shard.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_utils.artefact_writer import read_progress, write_progress
from data_utils.corpus import Corpus, write_side
from data_utils.prefetch import in_thread
from data_utils.shards import write_shard
from tokenization.row_converter import Block, Converter

ROWS = 4096  # rows that are converted together
AHEAD = 2  # blocks that are converted ahead


def convert_shards(converter: Converter, folder: Path) -> dict:
    """Convert all shards that are not finished; returns {"files": ..., "shards": counts of each}.

    Raises what Converter.convert raises.
    """
    corpus = converter.corpus
    progress = read_progress(folder) or {"files": {}, "shards": []}
    done = len(progress["shards"])
    if done:
        print(f"resuming after shard {done - 1}")
    starts = np.cumsum([0, *(len(shard) for shard in corpus.shards)]).tolist()
    todo = list(zip(starts, starts[1:], strict=False))[done:]
    ranges = [(r, min(r + ROWS, last)) for first, last in todo for r in range(first, last, ROWS)]
    found = in_thread(lambda rows: converter.convert(*rows), ranges, AHEAD)
    blocks = with_bar(found, starts[done], len(corpus))
    for number, (first, last) in enumerate(todo, start=done):
        name = f"{corpus.split}_{number}"
        counts = write_tokens(folder / name, last - first, blocks, converter.new.dtype)
        sides = write_sides(corpus, number, first, last, folder)
        progress["shards"].append(counts)
        write_progress(folder, progress, [f"{name}.bin", f"{name}.idx", *sides])
    return progress


def with_bar(found: Iterator[Block], done: int, total: int) -> Iterator[Block]:
    """The blocks, with a bar over the rows of the corpus."""
    with tqdm(total=total, initial=done, unit="seq", unit_scale=True, desc="convert") as bar:
        for block in found:
            bar.update(len(block.lengths))
            yield block


def write_tokens(prefix: Path, rows: int, blocks: Iterator[Block], dtype: np.dtype) -> dict:
    """Write the next rows as one shard; returns their counts, added up.

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
    """Write a shard's domains, if known, and its row numbers; returns the files' names."""
    rows = np.arange(first, last)
    domains, source_rows = corpus.side("domain", rows), corpus.side("source_row", rows)
    source_rows = rows if source_rows is None else source_rows
    names = [] if domains is None else [write_side(folder, "domain", number, domains)]
    return [*names, write_side(folder, "source_row", number, source_rows)]
