"""Scores that were made elsewhere: one number per row of the corpus, in its order.

.npy: one dimension, any real type. .pt: a float32 tensor of one dimension, as the original writes.
.parquet: a column `score`, or one column besides the row ids; the column `row` must be the row's
number in the corpus, `source_row` that of the corpus's own side file. NaN, or null, has no rank.
"""

from pathlib import Path

import numpy as np

from data_utils.corpus import Corpus
from data_utils.errors import InputError

FIX = "give a file with one number per row of the corpus, in its order (--score-file)"
IDS = ("row", "source_row")


def read(path: Path, corpus: Corpus, first_row: int, count: int) -> np.ndarray:
    """The scores of rows first_row .. first_row + count - 1 of the corpus, [count] float64.

    Raises an InputError for a file that is not one of scores or is not of these rows.
    """
    if path.suffix not in READERS:
        expected = ", ".join(READERS)
        what = "scores of this format are not read"
        raise InputError(what, where=path, expected=expected, found=path.suffix, fix=FIX)
    if not path.is_file():
        raise InputError("there is no such score file", where=path, fix=FIX)
    scores, ids = READERS[path.suffix](path)
    if scores.ndim != 1 or scores.dtype.kind not in "fiu":
        shape = " x ".join(map(str, scores.shape))
        raise InputError(
            "these are not scores",
            where=path,
            expected="one dimension of real numbers",
            found=f"{shape} of {scores.dtype}",
            fix=FIX,
        )
    if len(scores) != count:
        raise InputError(
            "the score file is of another corpus or of other shards",
            where=path,
            expected=f"{count} scores, one per row of {corpus.folder}",
            found=len(scores),
            fix="give the corpus that was scored (--data-dir) and its shards (--shards)",
        )
    for name, values in ids.items():
        check_ids(path, name, values, corpus, first_row)
    return scores.astype(np.float64)


def check_ids(path: Path, name: str, values: np.ndarray, corpus: Corpus, first_row: int) -> None:
    """Refuse row ids, [n], that are not those of the corpus's rows from first_row on."""
    rows = first_row + np.arange(len(values))
    expected = corpus.first_row + rows if name == "row" else corpus.side(name, rows)
    if expected is None:
        what = f"the corpus has no {name} to compare the score file's with"
        raise InputError(what, where=corpus.folder, fix=f"give a file without the column {name}")
    differ = np.flatnonzero(values != expected)
    if len(differ):
        at = int(differ[0])
        raise InputError(
            f"the score file's line {at} is of another row of the corpus",
            where=path,
            expected=f"{name} {expected[at]}",
            found=values[at],
            fix="sort the file by row, or give the corpus that was scored (--data-dir)",
        )


def read_npy(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(the array, no row ids)"""
    try:
        scores = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise unreadable(path, error) from error
    return scores, {}


def read_pt(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(the tensor's numbers, no row ids)"""
    from miniplm import import_scores

    return import_scores.read_file(path, FIX), {}


def read_parquet(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(the column of scores, the columns of row ids by name)"""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            others = [name for name in names if name not in IDS]
            if "score" not in names and len(others) != 1:
                expected = f"score, or one column besides {' and '.join(IDS)}"
                what, found = "it is not clear which column is the score", ", ".join(names)
                raise InputError(what, where=path, expected=expected, found=found, fix=FIX)
            score = "score" if "score" in names else others[0]
            wanted = [score, *(name for name in IDS if name in names)]
            table = file.read(columns=wanted)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
    columns = {name: table.column(name).to_numpy() for name in wanted}
    return columns.pop(score), columns


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for bytes that are not what the file's name says."""
    reason = str(error).strip().split("\n")[0]
    return InputError(f"the scores cannot be read ({reason})", where=path, fix=FIX)


READERS = {".npy": read_npy, ".parquet": read_parquet, ".pt": read_pt}
