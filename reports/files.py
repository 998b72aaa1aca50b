"""Files of a report, each written atomically: text, pictures, tables as CSV."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from data_utils.atomic_files import atomic_file


def save(path: Path, content: str | bytes) -> None:
    """Write a picture's bytes, or text as UTF-8."""
    with atomic_file(path) as file:
        file.write(content if isinstance(content, bytes) else content.encode("utf-8", "replace"))


def write_csv(path: Path, rows: Sequence[dict]) -> None:
    """Write rows with equal keys as CSV; floats in full precision."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    save(path, file.getvalue())


def read_csv(path: Path, texts: Sequence[str] = ()) -> list[dict]:
    """The rows of a CSV file; all columns but those named in texts are numbers."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {key: value if key in texts else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
