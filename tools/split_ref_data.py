"""Give the reference model its own part of the corpus, by links to its shards.

    python3 tools/split_ref_data.py BASE_PATH [--shards 240:246]

Reads BASE_PATH/processed_data/pretrain/pile/qwen-1025, writes .../pile_ref/qwen-1025 with hard
links (copies where the file system has none). These shards must never be scored.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import os
from dataclasses import asdict, dataclass

from data_utils.artefact_writer import Output
from data_utils.atomic_files import copy_file
from data_utils.corpus import Corpus, shard_range
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.tokenizer import copy_tokenizer


@dataclass
class Settings:
    """Make the reference model's part of the corpus."""

    base_path: str = flag(".", "folder with processed_data/")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the whole corpus")
    save: str = flag("processed_data/pretrain/pile_ref/qwen-1025", "the reference's part")
    shards: str = flag("240:246", "its shards, FIRST:LAST (REF_SHARDS)")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir))
    first, last = shard_range(settings.shards)
    if last > corpus.all_shards:
        raise InputError(
            f"REF_SHARDS={settings.shards}: the corpus does not have these shards",
            where=corpus.folder,
            expected=f"at most 0:{corpus.all_shards}",
            found=settings.shards,
            fix="choose REF_SHARDS outside SCORE_SHARDS, or tokenize with a smaller SHARD_SIZE",
        )
    output = Output(
        folder=under(base, settings.save),
        kind="corpus",
        program="tools/split_ref_data.py",
        content={**corpus.carried(), "shards": [first, last]},
        settings=asdict(settings),
        inputs={"corpus": (corpus.folder, corpus.identity)},
    )
    output.make(lambda: split(Corpus(corpus.folder, shards=(first, last)), output))
    print(f"{output.folder}: shards {first} to {last - 1} of {corpus.folder}")


def split(part: Corpus, output: Output) -> None:
    """Link the part's files under new numbers and write the manifest."""
    files, linked = [], {}
    known = {entry["name"]: entry for entry in (part.manifest.files if part.manifest else [])}
    names = (f"{part.split}_{{}}.bin", f"{part.split}_{{}}.idx")
    names += ("domain_{}.npy", "source_row_{}.npy")
    for number in range(len(part.shards)):
        for name in names:
            source = part.folder / name.format(part.first_shard + number)
            if source.exists():
                files.append(name.format(number))
                link(source, output.folder / files[-1])
                if source.name in known:
                    linked[files[-1]] = {**known[source.name], "name": files[-1]}
    if part.tokenizer_folder is not None:
        files += copy_tokenizer(part.tokenizer_folder, output.folder / "tokenizer")
    counts = {
        "shards": len(part.shards),
        "sequences": len(part),
        "tokens": sum(shard.size for shard in part.shards),
        "domains": part.domains,
    }
    output.finish(files, counts, linked=linked)


def link(source: Path, target: Path) -> None:
    """A hard link, where that fails a relative symbolic one, where that does a copy.

    Both folders may be reached through links, which a relative one does not go back through.
    """
    target.unlink(missing_ok=True)
    source, target = source.resolve(), target.parent.resolve() / target.name
    try:
        os.link(source, target)
    except OSError:
        try:
            target.symlink_to(os.path.relpath(source, target.parent))
        except OSError:
            copy_file(source, target)


if __name__ == "__main__":
    run(main)
