"""Copy rows of a corpus into new shards, in order; a killed copy resumes after its last shard.

Beside a shard are the corpus's own side files, cut to these rows, and source_row_K.npy: the row of
the corpus that was copied, whatever that corpus was itself taken from.
"""

import contextlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_utils.atomic_files import atomic_file
from data_utils.corpus import Corpus, write_side
from data_utils.errors import ArtefactError
from data_utils.shards import SIDES, Shard, write_index
from data_utils.tokenizer import copy_tokenizer

ROWS = 1 << 12  # gathered in memory and written at once


def copy_rows(
    corpus: Corpus, rows: np.ndarray, folder: Path, shard_size: int
) -> tuple[list[str], dict]:
    """Copy ascending rows and the corpus's tokenizer; returns (names of the files, counts)."""
    files, shards, tokens = copy_shards(corpus, rows, folder, shard_size)
    if corpus.tokenizer_folder is not None:
        files += copy_tokenizer(corpus.tokenizer_folder, folder / "tokenizer")
    counts = {"shards": shards, "sequences": len(rows), "tokens": tokens}
    return files, counts | {"domains": corpus.domains}


def copy_shards(
    corpus: Corpus, rows: np.ndarray, folder: Path, shard_size: int
) -> tuple[list[str], int, int]:
    """Copy ascending rows; returns (names of the files, shards, tokens)."""
    files, shards, tokens = [], 0, 0
    with tqdm(total=len(rows), unit="seq", unit_scale=True, desc="copy", mininterval=1) as bar:
        for start in range(0, len(rows), shard_size):
            part = rows[start : start + shard_size]
            prefix = folder / f"{corpus.split}_{shards}"
            if is_there(prefix, part):
                bar.initial += len(part)  # so that the time left is that of the rest
                bar.update(len(part))
            else:
                copy_shard(corpus, part, prefix, bar)
            shard = Shard(prefix)
            paths = (shard.data, shard.index, *map(shard.side_file, SIDES))
            files += [path.name for path in paths if path.exists()]
            tokens += shard.size
            shards += 1
    return files, shards, tokens


def copy_shard(corpus: Corpus, rows: np.ndarray, prefix: Path, bar: tqdm) -> None:
    """Write ascending rows as one shard; it is complete with the file of their numbers."""
    with atomic_file(prefix.with_name(prefix.name + ".bin")) as file:
        for start in range(0, len(rows), ROWS):
            sequences = corpus.sequences(rows[start : start + ROWS])
            file.write(np.concatenate(sequences))
            bar.update(len(sequences))
    write_index(prefix, corpus.lengths(rows), corpus.dtype)
    number = int(prefix.name.rpartition("_")[2])
    for name in SIDES:
        values = rows if name == "source_row" else corpus.side(name, rows)
        if values is not None:
            write_side(prefix.parent, name, number, values)


def is_there(prefix: Path, rows: np.ndarray) -> bool:
    """Whether an earlier start copied exactly these rows; an incomplete shard is copied again."""
    with contextlib.suppress(ArtefactError):
        shard = Shard(prefix)
        return len(shard) == len(rows) and np.array_equal(shard.side("source_row"), rows)
    return False
