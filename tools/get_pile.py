"""Get the pre-training text: the Pile from the hub or from a copy, or text of this machine.

Writes data/pile/train/K.jsonl under BASE_PATH, one {"text", "meta": {"pile_set_name"}} a line, and
for --source local also data/pile/heldout/0.jsonl. Started again it goes on where it was.

    python tools/get_pile.py BASE_PATH                          # 1,000,000 documents a file
    python tools/get_pile.py BASE_PATH --from /PATH/TO/COPY     # .jsonl[.zst|.gz] or .parquet files
    python tools/get_pile.py BASE_PATH --source local --plant-noise 0.3
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import dataclasses
import functools
from collections import Counter
from typing import Any, Literal

from data_utils import atomic_files
from data_utils.artefact_writer import Output
from data_utils.flags import base_folder, flag, parse, under
from reports import terminal
from reports.page import Column, integer, percent
from tokenization.text import Documents, document_writer, file_name
from tokenization.text_folder import text_files
from tools import hub, pile_stream
from tools.offline.text_mix import Mix, draw_documents, plant_noise

PROGRAM = "tools/get_pile.py"
COLUMNS = (
    Column("source", "source"),
    Column("documents", "documents", integer),
    Column("share_of_documents", "share", percent),
    Column("bytes", "bytes", integer),
    Column("share_of_bytes", "share", percent),
    Column("packages", "packages", integer),
)


@dataclasses.dataclass
class Settings:
    """Get the pre-training text into data/pile/train."""

    base_path: str = flag(".", "folder under which data/ lies")
    source: Literal["hub", "local"] = flag("hub", "hub: the Pile; local: text of this machine")
    from_dir: str = flag("", "folder with a copy of the Pile's files, instead of the hub",
                         aliases=["--from"])  # fmt: skip
    limit: int = flag(0, "hub or copy: documents to take, 0: all")
    skip_bad_lines: bool = flag(False, "copy: leave out and list lines that hold no document")
    skip_other_files: bool = flag(False, "copy: pass over files of other formats")
    documents_per_file: int = flag(1_000_000, "documents in a file")
    compress: Literal["none", "zstd"] = flag("none", "zstd: write K.jsonl.zst")
    revision: str = flag("", "revision of the hub's data set, default: the newest")
    local_bytes: int = flag(2_000_000, "local: bytes of training text")
    heldout_bytes: int = flag(400_000, "local: bytes of held-out text")
    plant_noise: float = flag(
        0.0,
        "local: share of the training documents (about that of their bytes too) to word-shuffle",
    )
    seed: int = flag(10, "local: seed of choice, order and noise")

    def __post_init__(self) -> None:
        problems = []
        for name in ("limit", "local_bytes", "heldout_bytes"):
            if getattr(self, name) < 0:
                problems.append(f"--{name.replace('_', '-')} is negative")
        if self.documents_per_file < 1:
            problems.append("--documents-per-file is below 1")
        if not 0 <= self.plant_noise <= 1:
            problems.append(f"--plant-noise {self.plant_noise} is no share from 0 to 1")
        if self.source == "local" and (self.from_dir or self.limit):
            problems.append("--from and --limit do not go with --source local")
        if self.source == "hub" and self.plant_noise:
            problems.append("--plant-noise is for --source local only")
        if (self.skip_bad_lines or self.skip_other_files) and not self.from_dir:
            problems.append("--skip-bad-lines and --skip-other-files are for --from only")
        if problems:
            raise ValueError("; ".join(problems))


def main(argv: list[str] | None = None) -> None:
    settings = parse(Settings, argv, positional="base_path")
    folder = base_folder(settings.base_path) / "data/pile"
    if settings.source == "local":
        get_local(settings, folder)
    else:
        get_pile(settings, folder / "train")


def output(folder: Path, content: dict, settings: Settings) -> Output:
    """The text artefact in folder."""
    return Output(folder, "text", PROGRAM, content, dataclasses.asdict(settings))


def get_local(settings: Settings, folder: Path) -> None:
    """Training and held-out text from this machine's packages."""
    names = "source local_bytes heldout_bytes seed compress".split()
    content = {name: getattr(settings, name) for name in names}

    @functools.cache
    def drawn() -> tuple[Mix, Mix]:
        print("drawing documents from the installed packages", flush=True)
        return draw_documents(settings)

    def write_training() -> None:
        mix = drawn()[0]
        documents = plant_noise(mix.documents, settings.plant_noise, settings.seed)
        write_local(train, documents, mix.left_out, settings)

    def write_heldout() -> None:
        mix = drawn()[1]
        write_local(heldout, mix.documents, mix.left_out, settings)

    heldout = output(folder / "heldout", content, settings)
    heldout.make(write_heldout)
    train = output(folder / "train", content | {"plant_noise": settings.plant_noise}, settings)
    train.make(write_training)


def write_local(result: Output, documents: list, left_out: dict, settings) -> None:
    """Write documents as file 0 of an artefact and show what they are."""
    name = file_name(0, settings.compress)
    with (
        atomic_files.atomic_file(result.folder / name) as raw,
        document_writer(raw, settings.compress) as write,
    ):
        size_written = sum(write(document.line()) for document in documents)
    count, size = Counter(), Counter()
    for document in documents:
        count[document.source] += 1
        size[document.source] += len(document.text.encode())
    sources = {
        source: {
            "documents": count[source],
            "share_of_documents": round(count[source] / len(documents), 4),
            "bytes": size[source],
            "share_of_bytes": round(size[source] / size.total(), 4),
            "packages": len({d.package for d in documents if d.source == source}),
        }
        for source in sorted(count)
    }
    counts = {"documents": len(documents), "bytes": size_written}
    result.finish([name], counts, {"sources": sources, "left_out": left_out})
    show_local(result.folder, sources, left_out)


def show_local(folder: Path, sources: dict, left_out: dict) -> None:
    """A table of the documents a source, and what was looked at and left out."""
    rows = [{"source": source, **row} for source, row in sources.items()]
    print(f"\n{folder}\n{terminal.table(rows, COLUMNS)}")
    reasons = Counter()
    for counter in left_out.values():
        reasons.update(counter)
    text = "; ".join(f"{number} {reason}" for reason, number in reasons.most_common())
    print(f"left out: {text or 'nothing'}", flush=True)


def get_pile(settings: Settings, folder: Path) -> None:
    """The Pile from the hub or from a copy of its files, file after file."""
    names = "source limit documents_per_file compress".split()
    content: dict[str, Any] = {name: getattr(settings, name) for name in names}
    if settings.from_dir:
        place = under(base_folder(settings.base_path), settings.from_dir)
        files = text_files(place, settings.skip_other_files)
        content["files"] = [[path.name, path.stat().st_size] for path in files]
        skip_bad = settings.skip_bad_lines
        source = functools.partial(Documents, files, skip_bad=skip_bad, copied=True)
    else:
        repository = content["repository"] = pile_stream.REPOSITORY
        revision = hub.pinned(folder, repository, "dataset", settings.revision, pile_stream.FIX)
        content["revision"] = revision
        source = functools.partial(pile_stream.HubDocuments, revision)
    result = output(folder, content, settings)
    result.make(lambda: pile_stream.write_files(result, source, settings))


if __name__ == "__main__":
    run(main)
