"""Where tokenising stands behind its last complete shard: progress.npz in the corpus's folder.

It holds what the files do not: the buffers of the sources, the sequences that wait for the next
shard, the table, and the place in the input. Written after the shards it counts, atomically: what
was begun after it is done again, with the same bytes.
"""

import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_utils import atomic_files
from data_utils.artefact_writer import check_finished, damaged
from tokenization.chunker import Chunker
from tokenization.shuffled_shards import ShuffledShards
from tokenization.source_table import SourceTable

NAME = "progress.npz"


@dataclass
class Work:
    """All that changes while text is tokenised."""

    chunker: Chunker
    shards: ShuffledShards
    table: SourceTable


def save(folder: Path, work: Work, state: dict) -> None:
    """Record the work behind a flush and the input's state."""
    buffers = work.chunker.buffers
    words = {
        "state": state,
        "sources": list(buffers),
        "documents_cut": work.chunker.documents_cut,
        "tokens_dropped": work.chunker.tokens_dropped,
        "table": work.table.state(),
        "sizes": [(folder / name).stat().st_size for name in work.shards.files],
    }
    arrays = work.shards.state()
    arrays |= {f"buffer_{number}": buffer for number, buffer in enumerate(buffers.values())}
    with atomic_files.atomic_file(folder / NAME) as file:
        np.savez(file, words=np.array(json.dumps(words)), **arrays)


def resume(folder: Path, work: Work) -> dict | None:
    """Put the work where it was; the input's state, None where nothing was recorded."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            words = json.loads(str(arrays["words"]))
            work.shards.resume({name: arrays[name] for name in ("tokens", "sequences", "counts")})
            for number, source in enumerate(words["sources"]):
                work.chunker.buffers[source] = arrays[f"buffer_{number}"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise damaged("the record of progress is damaged", path) from error
    work.chunker.documents_cut = Counter(words["documents_cut"])
    work.chunker.tokens_dropped = Counter(words["tokens_dropped"])
    work.table.resume(words["table"])
    check_finished(folder, dict(zip(work.shards.files, words["sizes"], strict=True)))
    print(f"going on behind shard {work.shards.shards - 1}, {work.shards.rows:,} sequences")
    return words["state"]
