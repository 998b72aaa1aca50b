"""A selection as row numbers: with a copy of the scored corpus it gives the selected one again.

FOLDER/rows.npy: uint8, one bit per row of the corpus (numpy.packbits), 1 where it is kept.
FOLDER/selection.json: format, name (of the selected corpus's folder), content and counts (of its
manifest), corpus (the number of rows, and name, size and SHA-256 of each shard file) and rows (the
SHA-256 of the bits).
"""

import hashlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output, describe
from data_utils.corpus import Corpus, recorded_corpus
from data_utils.errors import ArtefactError, InputError
from miniplm.shard_copy import copy_rows

FORMAT = 1
ROWS, ABOUT = "rows.npy", "selection.json"
AGAIN = "publish the selection again (tools/publish.py), or copy the whole folder"


def write(folder: Path, target: Path) -> dict:
    """Write the selected corpus in folder as row numbers to target; returns selection.json."""
    manifest = artefact.require(folder, "corpus", "give a corpus that was selected")
    if manifest is None or "criterion" not in manifest.content or "rows" in manifest.content:
        what = "the corpus was not selected here from scored rows of another"
        raise InputError(what, where=folder, fix="give what construct_pretrain_data.py wrote")
    source = recorded_corpus(
        folder, manifest.inputs["corpus"], "that was selected from", "put the scored corpus back"
    )
    selected = Corpus(folder)
    rows = selected.side("source_row", np.arange(len(selected)))
    kept = np.zeros(len(source), bool)
    kept[rows] = True
    bits = np.packbits(kept)
    about = {
        "format": FORMAT,
        "name": f"{folder.parent.name}/{folder.name}",
        "content": manifest.content,
        "counts": manifest.counts,
        "corpus": {"rows": len(source), "files": shard_files(source)},
        "rows": hashlib.sha256(bits).hexdigest(),
    }
    target.mkdir(parents=True, exist_ok=True)
    with atomic_files.atomic_file(target / ROWS) as file:
        np.save(file, bits)
    atomic_files.write_json(target / ABOUT, about)
    return about


def shard_files(corpus: Corpus) -> list[dict]:
    """Name, size and SHA-256 of each shard file: of the manifest, or computed without one."""
    names = [path.name for shard in corpus.shards for path in (shard.data, shard.index)]
    if corpus.manifest:
        known = {entry["name"]: entry for entry in corpus.manifest.files}
    else:
        bar = tqdm(names, desc="checksums of the corpus", unit="file")
        known = {name: describe(corpus.folder, name) for name in bar}
    return [{key: known[name][key] for key in ("name", "size", "sha256")} for name in names]


def read(folder: Path) -> tuple[dict, np.ndarray]:
    """(selection.json, the kept rows ascending) of a published selection; errors if damaged."""
    for name in (ABOUT, ROWS):
        if not (folder / name).is_file():
            raise InputError("this is not a published selection", where=folder / name, fix=AGAIN)
    about = atomic_files.read_json(folder / ABOUT, AGAIN)
    try:
        bits = np.load(folder / ROWS, allow_pickle=False)
        rows = np.flatnonzero(np.unpackbits(bits, count=about["corpus"]["rows"]))
        good = about["format"] == FORMAT and hashlib.sha256(bits).hexdigest() == about["rows"]
    except (ValueError, KeyError, TypeError, EOFError):
        good = False
    if not good:
        raise ArtefactError("the published selection is damaged", where=folder, fix=AGAIN)
    return about, rows


def require_corpus(corpus: Corpus, about: dict, folder: Path) -> None:
    """InputError unless the corpus has the shard files that the selection was made of."""
    expected = about["corpus"]["files"]
    sizes = [shard_file.stat().st_size for s in corpus.shards for shard_file in (s.data, s.index)]
    found = shard_files(corpus) if sizes == [entry["size"] for entry in expected] else []
    if found != expected:
        pairs = zip(found, expected, strict=False)
        other = next((mine["name"] for mine, theirs in pairs if mine != theirs), "its shards")
        raise InputError(
            f"the selection is of another corpus: {other} is not the same",
            where=corpus.folder,
            expected=f"{about['corpus']['rows']:,} rows in {len(expected) // 2} shards of {folder}",
            found=f"{len(corpus):,} rows in {len(corpus.shards)} shards",
            fix="give the corpus that was scored (--data-dir)",
        )


def construct(corpus: Corpus, folder: Path, save: Path, program: str) -> artefact.Manifest:
    """The selected corpus, made again into `save` from published rows and a copy of the corpus."""
    about, rows = read(folder)
    require_corpus(corpus, about, folder)
    content = about["content"] | {"rows": artefact.canonical_hash(about)}
    settings = {"from_rows": str(folder)}
    inputs = {"corpus": (corpus.folder, corpus.identity)}
    output = Output(save, "corpus", program, content, settings, inputs)

    def work() -> None:
        files, counts = copy_rows(corpus, rows, save, content["shard_size"])
        output.finish(files, about["counts"] | counts)

    return output.make(work)
