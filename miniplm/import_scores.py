"""Make a score store of the original's score files, scores_0.pt, scores_1.pt and so on.

    python3 miniplm/score.py import BASE_PATH --scores-dir FOLDER --save results/scores/...

Format: one float32 tensor per file, the mean losses of consecutive sequences in corpus order; all
files but the last have the same number (640,000 in the original's). They name neither model nor
corpus: the corpus is the one given here, the number of its rows must be theirs, and the counted
tokens are counted in it. A mean is used as it is.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.elastic import Arrays, ElasticJob
from data_utils.errors import ArtefactError, InputError
from data_utils.flags import base_folder, flag, parse, under
from miniplm.scores import examine, first_bad, open_shards, seen_shards
from pretrain.belonging import end_of_text
from pretrain.models import GET_MODEL

GIVE = "give the folder with all score files of one model (--scores-dir)"
ROWS = 4096  # counted at once


@dataclass
class Settings:
    """Make a score store of the original's score files scores_0.pt, scores_1.pt, ..."""

    base_path: str = flag(".", "the folder of processed_data/ and results/")
    scores_dir: str = flag("", "folder of the files scores_K.pt")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the corpus they belong to")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    model_path: str = flag("", "the model they come from, if it is there")
    save: str = flag("results/scores/pile/qwen-1025/qwen_1.8B", "folder of the scores")
    shards: str = flag("0:200", "shards that were scored; those that do not exist are skipped")

    def __post_init__(self) -> None:
        if not self.scores_dir:
            raise ValueError("--scores-dir is missing")


def main(argv: list[str]) -> None:
    settings = parse(Settings, argv, positional="base_path")
    base = base_folder(settings.base_path)
    corpus, first_row = open_shards(under(base, settings.data_dir), settings.shards)
    eos_id = end_of_text(corpus, under(base, settings.tokenizer_path))
    folder = under(base, settings.scores_dir)
    files = find_files(folder)
    losses = read_files(files, len(corpus))
    inputs = {"corpus": (corpus.folder, corpus.identity), **sources(folder, files, base, settings)}
    content = {
        "type": "mean log-probabilities",
        "shards": [corpus.first_shard, corpus.last_shard],
        "block_size": len(losses[0]),
    }
    save = under(base, settings.save)
    output = Output(save, "scores", "miniplm/score.py import", content, asdict(settings), inputs)

    def convert(rows: np.ndarray, advance: Callable[[int], object]) -> Arrays:
        number = int(rows[0]) // len(losses[0])
        counts = count_tokens(corpus, rows, eos_id, advance)
        bad = first_bad(losses[number], counts)
        if bad is not None:
            raise ArtefactError(
                f"the loss is {losses[number][bad]} for {corpus.describe(int(rows[bad]))}",
                where=files[number],
                fix="get the file again, or score with miniplm/score.py",
            )
        return {"mean": np.where(counts > 0, -losses[number], np.float32(0)), "count": counts}

    job = ElasticJob(output, len(corpus), len(losses[0]), first_row)
    seen = bool(seen_shards(corpus, inputs["model"][0]))
    made = job.run(lambda: (convert, "imported"), examine, seen_in_training=seen)
    if made:
        print(
            f"{made.folder}: {made.counts['sequences']:,} scores imported, "
            f"{made.counts['without_counted_tokens']} without a counted token"
        )


def find_files(folder: Path) -> list[Path]:
    """scores_0.pt to the last one; InputError if there is none or one is missing."""
    found = {
        int(m[1]) for p in folder.glob("*") if (m := re.fullmatch(r"scores_(\d+)\.pt", p.name))
    }
    if not found:
        raise InputError("there are no score files scores_0.pt, ...", where=folder, fix=GIVE)
    files = [folder / f"scores_{number}.pt" for number in range(max(found) + 1)]
    for path in files:
        if not path.exists():
            raise InputError("a score file is missing", where=path, fix=GIVE)
    return files


def read_files(files: list[Path], rows: int) -> list[np.ndarray]:
    """The mean losses of each file, float32; all but the last are equally long, `rows` in all.

    Anything else is an InputError.
    """
    losses = [read_file(path) for path in files]
    size, total = len(losses[0]), sum(map(len, losses))
    for path, part in zip(files[:-1], losses, strict=False):
        if len(part) != size:
            what = "the score file is not as long as the first one"
            raise InputError(what, where=path, expected=size, found=len(part), fix=GIVE)
    if total != rows or len(losses[-1]) > size:
        raise InputError(
            "the score files do not fit the corpus",
            where=files[0].parent,
            expected=f"{rows} scores, one per sequence",
            found=total,
            fix="give the corpus that was scored (--data-dir), its shards (--shards) and all files",
        )
    return losses


def read_file(path: Path, fix: str = GIVE) -> np.ndarray:
    """The mean losses in one file, [n] float32; InputError if it has something else."""
    import torch

    try:
        losses = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # many classes, one meaning: these bytes are not a tensor
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"the scores cannot be read ({reason})", where=path, fix=fix) from error
    shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
    if not isinstance(losses, torch.Tensor) or losses.ndim != 1 or losses.dtype != torch.float32:
        raise InputError(
            "these are not scores of the original",
            where=path,
            expected="a float32 tensor of one dimension",
            found=f"{getattr(losses, 'dtype', '')} {shape}".strip(),
            fix=fix,
        )
    return losses.numpy()


def sources(folder: Path, files: list[Path], base: Path, settings: Settings) -> dict:
    """The inputs `score_files` and `model`; an unknown model is what wrote these files."""
    fingerprint = artefact.canonical_hash([atomic_files.sha256(path) for path in files])
    model = (folder, {"kind": "unknown model of score files", "fingerprint": fingerprint})
    if settings.model_path:
        path = under(base, settings.model_path)
        model = (path, artefact.identity(path, "model", GET_MODEL))
    score_files = (folder, {"kind": "score files", "fingerprint": fingerprint})
    return {"score_files": score_files, "model": model}


def count_tokens(
    corpus: Corpus, rows: np.ndarray, eos_id: int, advance: Callable[[int], object]
) -> np.ndarray:
    """Counted positions of rows, [len(rows)] int32: inputs other than the end-of-text token."""
    counts = []
    for start in range(0, len(rows), ROWS):
        tokens, lengths = corpus.batch(rows[start : start + ROWS], eos_id)
        # The last token of a row is a label only.
        inputs = np.arange(tokens.shape[1]) < lengths[:, None] - 1
        counts.append((inputs & (tokens != eos_id)).sum(axis=1, dtype=np.int32))
        advance(len(lengths))
    return np.concatenate(counts)
