"""Get the pre-training text: the Pile from the hub or from a copy, or text of this machine.

Writes data/pile/train/K.jsonl under BASE_PATH, one {"text", "meta": {"pile_set_name"}} per line,
and for --source local also data/pile/heldout/0.jsonl. Run again it resumes after the last file.

    python tools/get_pile.py BASE_PATH                          # 1,000,000 documents per file
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

from data_utils.artefact_writer import Output
from data_utils.flags import base_folder, flag, parse, under
from tokenization.text import Documents, document_file
from tokenization.text_folder import text_files
from tools import hub, pile_stream
from tools.offline import local_text


@dataclasses.dataclass
class Settings:
    """Get the pre-training text into data/pile/train."""

    base_path: str = flag(".", "folder with data/")
    source: Literal["hub", "local"] = flag("hub", "hub: the Pile; local: text of this machine")
    from_dir: str = flag("", "folder with a copy of the Pile's files, instead of the hub",
                         aliases=["--from"])  # fmt: skip
    limit: int = flag(0, "hub or copy: documents to take, 0: all")
    skip_bad_lines: bool = flag(False, "copy: leave out and list lines that do not hold a document")
    skip_other_files: bool = flag(False, "copy: pass over files of other formats")
    documents_per_file: int = flag(1_000_000, "documents per file")
    compress: Literal["none", "zstd"] = flag("none", "zstd: write K.jsonl.zst")
    revision: str = flag("", "revision of the hub's data set, default: the newest")
    local_bytes: int = flag(2_000_000, "local: bytes of training text")
    heldout_bytes: int = flag(400_000, "local: bytes of held-out text")
    plant_noise: float = flag(
        0.0, "local: share of the training documents (about that of their tokens too) to replace"
    )
    plant: Literal[*local_text.PLANTS] = flag(
        "shuffle", "local: by their own words shuffled, or by junk: binary files as text"
    )
    seed: int = flag(10, "local: seed of choice, order and noise")

    def __post_init__(self) -> None:
        local = self.source == "local"
        problems = {
            "--limit, --local-bytes or --heldout-bytes is negative": 0
            > min(self.limit, self.local_bytes, self.heldout_bytes),
            "--documents-per-file is below 1": self.documents_per_file < 1,
            "--plant-noise is not a share from 0 to 1": not 0 <= self.plant_noise <= 1,
            "--from and --limit do not apply to --source local": local
            and (self.from_dir or self.limit),
            "--plant-noise applies only to --source local": not local and self.plant_noise,
            "--skip-bad-lines and --skip-other-files apply only to --from": not self.from_dir
            and (self.skip_bad_lines or self.skip_other_files),
        }
        if any(problems.values()):
            raise ValueError("; ".join(text for text, wrong in problems.items() if wrong))


def main(argv: list[str] | None = None) -> None:
    settings = parse(Settings, argv, positional="base_path")
    folder = base_folder(settings.base_path) / "data/pile"
    if settings.source == "local":
        get_local(settings, folder)
    else:
        get_pile(settings, folder / "train")


def output(folder: Path, content: dict, settings: Settings) -> Output:
    """The text artefact in folder."""
    return Output(folder, "text", "tools/get_pile.py", content, dataclasses.asdict(settings))


def get_local(settings: Settings, folder: Path) -> None:
    """Training and held-out text from this machine's packages."""
    names = "source local_bytes heldout_bytes seed compress".split()
    content = {name: getattr(settings, name) for name in names}
    share, seed = settings.plant_noise, settings.seed
    heldout = output(folder / "heldout", content, settings)
    planted = {"plant_noise": share, "plant": settings.plant if share else None}
    train = output(folder / "train", content | planted, settings)
    print("drawing documents from the installed packages", flush=True)
    clean, held_out = local_text.draw(seed, settings.local_bytes, settings.heldout_bytes)
    documents = local_text.plant(clean, share, seed, settings.plant)
    heldout.make(lambda: write_local(heldout, held_out, settings.compress))
    train.make(lambda: write_local(train, documents, settings.compress))


def write_local(result: Output, documents: list[local_text.Document], compress: str) -> None:
    """Write documents as file 0 of an artefact and show how many come from each source."""
    with document_file(result.folder, 0, compress) as (name, write):
        size = sum(write(document.line()) for document in documents)
    sources = dict(sorted(Counter(document.source for document in documents).items()))
    result.finish([name], {"documents": len(documents), "bytes": size}, {"sources": sources})
    shown = ", ".join(f"{number:,} {source}" for source, number in sources.items())
    print(f"{result.folder}: {len(documents):,} documents ({shown}), {size:,} bytes", flush=True)


def get_pile(settings: Settings, folder: Path) -> None:
    """The Pile from the hub or from a copy of its files, file after file."""
    names = "source limit documents_per_file compress".split()
    content: dict[str, Any] = {name: getattr(settings, name) for name in names}
    if settings.from_dir:
        place = under(base_folder(settings.base_path), settings.from_dir)
        files = text_files(place, settings.skip_other_files)
        content["files"] = [[path.name, path.stat().st_size] for path in files]
        source = functools.partial(Documents, files, skip_bad=settings.skip_bad_lines, copied=True)
    else:
        repository = pile_stream.REPOSITORY
        revision = hub.pinned(folder, repository, "dataset", settings.revision)
        content |= {"repository": repository, "revision": revision}
        source = functools.partial(pile_stream.HubDocuments, revision)
    result = output(folder, content, settings)
    result.make(lambda: pile_stream.write_files(result, source, settings))


if __name__ == "__main__":
    run(main)
