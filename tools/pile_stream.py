"""Streaming the Pile into files of a fixed number of documents, restartable at any point.

progress.json says which files are finished and where the input stands after them. It is written
after each file: what is killed before that is done again, with the same bytes.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from tqdm import tqdm

from data_utils.artefact_writer import Output, read_progress, write_progress
from tokenization.text import BadDocument, check_document, document_file
from tools import hub

REPOSITORY = "monology/pile-uncopyrighted"
ROWS = 177_000_000  # of its train split, about: for the time left


class HubDocuments:
    """The hub's documents from a state on, in its order (see Documents)."""

    def __init__(self, revision: str, state: dict | None) -> None:
        from datasets import load_dataset

        with hub.reached(REPOSITORY):
            self.data = load_dataset(REPOSITORY, split="train", streaming=True, revision=revision)
        if state is not None:
            self.data.load_state_dict(state["hub"])
        self.documents = state["documents"] if state is not None else 0

    @property
    def state(self) -> dict:
        """Where the next document is, for progress.json."""
        return {"hub": self.data.state_dict(), "documents": self.documents}

    def fraction(self) -> float:
        """Share of the documents that has been read, about."""
        return min(self.documents / ROWS, 1.0)

    def __iter__(self) -> Iterator[dict]:
        rows = iter(self.data)
        while True:
            with hub.reached(REPOSITORY):
                row = next(rows, None)
            if row is None:
                return
            self.documents += 1
            yield check_document(row, REPOSITORY, self.documents)


def write_files(result: Output, open_source: Callable[[dict | None], Any], settings: Any) -> None:
    """Write file after file; progress.json follows each, so a file is either counted or redone.

    open_source: gives Documents or HubDocuments from a state on (None: from the first).
    """
    limit = settings.limit or sys.maxsize
    start = {"files": {}, "documents": 0, "bytes": 0, "bad": 0, "state": None}
    progress = read_progress(result.folder) or start
    source = open_source(progress["state"])
    stream, files = good(source, progress), progress["files"]
    with tqdm(desc="text", unit="B", unit_scale=True, initial=progress["bytes"]) as bar:
        while progress["documents"] < limit:
            first = next(stream, None)
            if first is None:
                break
            count = min(settings.documents_per_file, limit - progress["documents"])
            with document_file(result.folder, len(files), settings.compress) as (name, write):
                for document in chain([first], islice(stream, count - 1)):
                    progress["bytes"] += write(document)
                    progress["documents"] += 1
                    if progress["documents"] % 1000 == 0:
                        # Bytes to expect, before compression, by the share of the input read.
                        share = max(source.fraction(), progress["documents"] / limit)
                        bar.total = round(progress["bytes"] / share)
                        bar.update(progress["bytes"] - bar.n)
            progress["state"] = source.state
            write_progress(result.folder, progress, [name])
    print("checksums of the files", flush=True)
    counts = {"documents": progress["documents"], "bytes": progress["bytes"]}
    counts |= {"bad_lines": progress["bad"]} if progress["bad"] else {}
    result.finish([*files], counts)
    print(f"{result.folder} is done: {counts['documents']:,} documents", flush=True)


def good(source: Iterable[dict | BadDocument], progress: dict) -> Iterator[dict]:
    """The documents of the source; bad lines are named on the terminal and counted in progress."""
    for document in source:
        if isinstance(document, BadDocument):
            name, number, reason = document.line
            print(f"left out: line {number} of {name} {reason}", flush=True)
            progress["bad"] += 1
        else:
            yield document
