"""Make a score store of the original's score files, scores_0.pt, scores_1.pt and so on.

    python3 miniplm/score.py import BASE_PATH --scores-dir FOLDER --save results/scores/...

Format: a float32 tensor a file, the mean losses of consecutive sequences in corpus order; all files
but the last one have the same number (640,000 in the original's). They name no model and no corpus:
the corpus is the one given here, the number of its rows must be theirs, and the counted tokens are
counted in it. A mean is used as it is.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError, InputError
from data_utils.flags import base_folder, flag, parse, under
from miniplm.score_job import open_corpus
from miniplm.scores import first_bad, write_store
from pretrain.belonging import end_of_text
from pretrain.models import GET_MODEL

GIVE = "give the folder with all score files of one model (--scores-dir)"
ROWS = 1 << 16  # counted in one go


@dataclass
class Settings:
    """Make a score store of the original's score files scores_0.pt, scores_1.pt, ..."""

    base_path: str = flag(".", "where processed_data/ and results/ lie")
    scores_dir: str = flag("", "folder of the files scores_K.pt")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the corpus they belong to")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    model_path: str = flag("", "the model they come from, if it is there")
    save: str = flag("results/scores/pile/qwen-1025/qwen_1.8B", "folder of the scores")
    shards: str = flag("0:200", "shards that were scored, FIRST:LAST; what is there of them")

    def __post_init__(self) -> None:
        if not self.scores_dir:
            raise ValueError("--scores-dir is missing")


def main(argv: list[str]) -> None:
    settings = parse(Settings, argv, positional="base_path")
    base = base_folder(settings.base_path)
    corpus, first_row = open_corpus(under(base, settings.data_dir), settings.shards)
    eos_id = end_of_text(corpus, under(base, settings.tokenizer_path))
    folder = under(base, settings.scores_dir)
    files = find_files(folder)
    losses = read_files(files, len(corpus))
    output = Output(
        under(base, settings.save),
        "scores",
        "miniplm/score.py import",
        {
            "type": "mean log-probabilities",
            "shards": [corpus.first_shard, corpus.last_shard],
            "block_size": len(losses[0]),
        },
        asdict(settings),
        {"corpus": (corpus.folder, corpus.identity), **source(folder, files, base, settings)},
    )
    output.make(lambda: write(output, corpus, first_row, eos_id, losses, files))


def find_files(folder: Path) -> list[Path]:
    """scores_0.pt to the last one, none missing."""
    found = {
        int(m[1]) for p in folder.glob("*") if (m := re.fullmatch(r"scores_(\d+)\.pt", p.name))
    }
    if not found:
        raise InputError("there are no score files scores_0.pt, ...", where=folder, fix=GIVE)
    missing = sorted(set(range(max(found))) - found)
    if missing:
        where = folder / f"scores_{missing[0]}.pt"
        raise InputError("a score file is missing", where=where, fix=GIVE)
    return [folder / f"scores_{number}.pt" for number in sorted(found)]


def read_files(files: list[Path], rows: int) -> list[np.ndarray]:
    """The mean losses of each file, float32; all but the last are equally long, `rows` in all."""
    losses = [read_file(path) for path in files]
    size = len(losses[0])
    for path, part in zip(files[:-1], losses, strict=False):
        if len(part) != size:
            raise InputError(
                "the score file is not as long as the first one",
                where=path,
                expected=size,
                found=len(part),
                fix=GIVE,
            )
    total = sum(map(len, losses))
    if total != rows or len(losses[-1]) > size:
        raise InputError(
            "the score files do not fit the corpus",
            where=files[0].parent,
            expected=f"{rows} scores, one a sequence",
            found=total,
            fix="give the corpus that was scored (--data-dir), its shards (--shards) and all files",
        )
    return losses


def read_file(path: Path) -> np.ndarray:
    """The mean losses in one file, [n] float32."""
    import torch

    try:
        losses = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # many classes, one meaning: these bytes are no tensor
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"the scores cannot be read ({reason})", where=path, fix=GIVE) from error
    shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
    if not isinstance(losses, torch.Tensor) or losses.ndim != 1 or losses.dtype != torch.float32:
        raise InputError(
            "these are no scores of the original",
            where=path,
            expected="a float32 tensor of one dimension",
            found=f"{getattr(losses, 'dtype', '')} {shape}".strip(),
            fix=GIVE,
        )
    return losses.numpy()


def source(folder: Path, files: list[Path], base: Path, settings: Settings) -> dict:
    """The inputs `score_files` and `model`; an unknown model is what wrote these files."""
    fingerprint = artefact.canonical_hash([atomic_files.sha256(path) for path in files])
    inputs = {"score_files": (folder, {"kind": "score files", "fingerprint": fingerprint})}
    model = (folder, {"kind": "unknown model of score files", "fingerprint": fingerprint})
    if settings.model_path:
        path = under(base, settings.model_path)
        model = (path, artefact.identity(path, "model", GET_MODEL))
    return inputs | {"model": model}


def write(
    output: Output,
    corpus: Corpus,
    first_row: int,
    eos_id: int,
    losses: list[np.ndarray],
    files: list[Path],
) -> None:
    """One block a file, then the manifest."""

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
        start = 0
        bar = tqdm(losses, desc=output.folder.name, unit="file")
        for path, part in zip(files, bar, strict=True):
            counts = count_tokens(corpus, np.arange(start, start + len(part)), eos_id)
            bad = first_bad(part, counts)
            if bad is not None:
                raise ArtefactError(
                    f"the loss is {part[bad]} for {corpus.describe(start + bad)}",
                    where=path,
                    fix="get the file again, or score with miniplm/score.py",
                )
            yield np.where(counts > 0, -part, np.float32(0)), counts, f"imported from {path.name}"
            start += len(part)

    report = {"imported": [path.name for path in files]}
    counts = write_store(output, blocks(), first_row, report)["counts"]
    print(
        f"{output.folder}: {counts['sequences']:,} scores imported, "
        f"{counts['without_counted_tokens']} without a counted token"
    )


def count_tokens(corpus: Corpus, rows: np.ndarray, eos_id: int) -> np.ndarray:
    """Counted positions of consecutive rows, [len(rows)] int32: inputs that are no end-of-text."""
    counts = np.empty(len(rows), np.int32)
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        lengths = corpus.lengths(part)
        ends = np.cumsum(lengths)
        before = np.concatenate([[0], np.cumsum(np.concatenate(corpus.sequences(part)) != eos_id)])
        # The last token of a row is a label only.
        inputs_end = np.maximum(ends - 1, ends - lengths)
        counts[start : start + ROWS] = before[inputs_end] - before[ends - lengths]
    return counts
