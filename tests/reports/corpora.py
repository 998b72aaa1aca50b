"""A small corpus whose rows, sources and origin a test chooses."""

from pathlib import Path

import numpy as np

from data_utils.artefact_writer import Output
from data_utils.shards import write_shard
from data_utils.tokenizer import copy_tokenizer


def save_corpus(
    folder: Path,
    rows: list[np.ndarray],
    names: list[str],
    domains: list[int] | np.ndarray | None,
    *,
    tokenizer: Path | None = None,
    shards: int = 1,
    source_row: list[int] | None = None,
    inputs: dict | None = None,
) -> Path:
    """A finished corpus of `shards` about equal shards; domains: a number in names per row."""
    content = {"max_length": 65, "eos_id": 0, "split": "data"}
    output = Output(folder, "corpus", "tests", content, {}, inputs or {}).begin()
    files = []
    for shard, part in enumerate(np.array_split(np.arange(len(rows)), shards)):
        mine = [rows[row] for row in part]
        write_shard(folder / f"data_{shard}", [len(row) for row in mine], mine, np.dtype("<u2"))
        files += [f"data_{shard}.bin", f"data_{shard}.idx"]
        sides = (("domain", domains, np.uint8), ("source_row", source_row, np.int64))
        for name, values, dtype in sides:
            if values is not None:
                np.save(folder / f"{name}_{shard}.npy", np.array(values, dtype)[part])
                files.append(f"{name}_{shard}.npy")
    if tokenizer is not None:
        files += copy_tokenizer(tokenizer, folder / "tokenizer")
    output.finish(files, {"sequences": len(rows), "domains": names if domains is not None else []})
    return folder
