"""Difference sampling: keep the sequences with the highest difference scores, in corpus order.

    python3 scripts/miniplm/difference_sampling/construct_pretrain_data.py BASE_PATH [RATIO=0.5]

Reads the corpus and the difference store, writes the refined corpus BASE_PATH/processed_data/
pretrain/pile-diff_samp-qwen_1.8B-qwen_104M-r0.5/qwen-1025. --criterion random makes a control of
the same size from the same scored rows.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.shards import write_shard
from data_utils.tokenizer import copy_tokenizer
from miniplm.difference import FILE
from miniplm.ranking import keep_count, top

PROGRAM = "scripts/miniplm/difference_sampling/construct_pretrain_data.py"
FIX = "run scripts/miniplm/difference_sampling/compute_difference_scores.py"
CRITERIA = ("difference", "random")


@dataclass
class Settings:
    """Select the refined corpus."""

    base_path: str = flag(".", "where results/ and processed_data/ lie")
    ratio: float = flag(0.5, "share of the scored sequences to keep")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the scored corpus")
    scores: str = flag("results/scores/pile/qwen-1025", "folder of the score stores")
    teacher_name: str = flag("qwen_1.8B", "the teacher's store")
    ref_name: str = flag("qwen_104M", "the reference's store")
    data_name: str = flag("pile", "first part of the output's name")
    save: str = flag("", "folder of the selected corpus; default: named by the settings")
    criterion: str = flag("difference", f"one of {', '.join(CRITERIA)}")
    seed: int = flag(10, "of the random criterion")
    shard_size: int = flag(1_000_000, "sequences a shard")
    allow_reference_data: bool = flag(False, "select from what the reference was trained on too")

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"RATIO must be above 0 and at most 1, not {self.ratio}")
        if self.criterion not in CRITERIA:
            raise ValueError(f"--criterion {self.criterion}: one of {', '.join(CRITERIA)}")

    def output_folder(self) -> str:
        """Where the selected corpus goes, relative to BASE_PATH."""
        if self.save:
            return self.save
        sampling = "diff_samp" if self.criterion == "difference" else f"{self.criterion}_samp"
        name = f"{self.data_name}-{sampling}-{self.teacher_name}-{self.ref_name}-r{self.ratio:g}"
        return f"processed_data/pretrain/{name}/{Path(self.data_dir).name}"


def main() -> None:
    settings = parse(Settings, positional="base_path ratio")
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir))
    stores = under(base, settings.scores)
    store = stores / f"diff-{settings.teacher_name}-{settings.ref_name}"
    manifest = open_store(store, corpus)
    if manifest["report"]["seen_in_training"] and not settings.allow_reference_data:
        raise InputError(
            "the reference was trained on some of the scored sequences",
            where=store,
            fix="score others (SCORE_SHARDS outside REF_SHARDS), or --allow-reference-data true",
        )
    output = artefact.Output(
        under(base, settings.output_folder()),
        "corpus",
        PROGRAM,
        {
            "max_length": corpus.max_length,
            "ratio": settings.ratio,
            "criterion": settings.criterion,
            "seed": settings.seed if settings.criterion == "random" else None,
            "shard_size": settings.shard_size,
            **{
                name: corpus.manifest["content"].get(name)
                for name in ("tokenizer", "eos_id", "add_bos")
                if corpus.manifest
            },
        },
        asdict(settings),
        {
            "corpus": (corpus.folder, corpus.identity),
            "scores": (store, {"kind": "scores", "fingerprint": manifest["fingerprint"]}),
        },
    )
    with artefact.lock(output.folder):
        if output.begin().done:
            print(f"{output.folder} is there already")
        else:
            construct(corpus, store, manifest, settings, output)
    print_account(artefact.read_manifest(output.folder), output.folder)


def open_store(store: Path, corpus: Corpus) -> dict:
    """The difference store's manifest; it must be of this corpus."""
    manifest = artefact.require(store, "scores", FIX)
    if manifest is None or manifest["content"].get("type") != "difference":
        raise InputError("this is no store of differences", where=store, fix=FIX)
    if manifest["report"]["corpus"] != corpus.identity["fingerprint"]:
        raise InputError(
            "the scores are of another corpus",
            where=store,
            expected=f"corpus {corpus.identity['fingerprint'][:12]}",
            found=manifest["report"]["corpus"][:12],
            fix="give the corpus that was scored (DATA_DIR), or score this one",
        )
    return manifest


def choose(r: np.ndarray, settings: Settings) -> np.ndarray:
    """Positions of the selected rows among the scored ones: floor(ratio x defined rows)."""
    defined = ~np.isnan(r)
    keep = keep_count(settings.ratio, int(defined.sum()))
    if settings.criterion == "random":
        keys = np.random.default_rng(settings.seed).random(len(r))
        r = np.where(defined, keys, np.nan)
    return top(r, keep)


def construct(
    corpus: Corpus, store: Path, manifest: dict, settings: Settings, output: artefact.Output
) -> None:
    """Write the selected rows and the account of all rows."""
    r = np.load(store / FILE, mmap_mode="r", allow_pickle=False)
    selected = choose(r, settings)
    if len(selected) == 0:
        raise InputError(
            f"RATIO={settings.ratio:g} of {len(r)} scored sequences selects none",
            where=store,
            fix="use a larger RATIO or score more",
        )
    rows = manifest["counts"]["first_row"] + selected
    files = []
    starts = range(0, len(rows), settings.shard_size)
    for shard, start in enumerate(tqdm(starts, unit="shard", desc="copy")):
        files += copy_rows(corpus, rows[start : start + settings.shard_size], output.folder, shard)
    if corpus.tokenizer_folder is not None:
        files += copy_tokenizer(corpus.tokenizer_folder, output.folder / "tokenizer")
    undefined = manifest["counts"]["without_a_defined_difference"]
    counts = {
        "shards": len(starts),
        "sequences": len(rows),
        "tokens": int(corpus.lengths(rows).sum()),
        "domains": corpus.domains,
        "kept": len(rows),
        "dropped": len(r) - undefined - len(rows),
        "without_a_defined_difference": undefined,
        "not_scored": len(corpus) - len(r),
        "rows_of_the_corpus": len(corpus),
    }
    output.finish(files, counts)


def copy_rows(corpus: Corpus, rows: np.ndarray, folder: Path, shard: int) -> list[str]:
    """Write rows (ascending) as one shard with their row numbers and domains; its file names."""
    prefix = folder / f"data_{shard}"
    write_shard(prefix, corpus.lengths(rows), corpus.runs(rows), corpus.dtype)
    sides = {"source_row": rows.astype(np.int64)}
    domains = corpus.side("domain", rows)
    if domains is not None:
        sides["domain"] = domains
    for name, values in sides.items():
        with artefact.atomic_file(folder / f"{name}_{shard}.npy") as file:
            np.save(file, values)
    return [f"data_{shard}.bin", f"data_{shard}.idx", *(f"{name}_{shard}.npy" for name in sides)]


def print_account(manifest: dict, folder: Path) -> None:
    """Say what became of every row."""
    c = manifest["counts"]
    print(
        f"{folder}: {c['kept']:,} kept + {c['dropped']:,} dropped + "
        f"{c['without_a_defined_difference']:,} without a defined difference + "
        f"{c['not_scored']:,} not scored = {c['rows_of_the_corpus']:,} rows of the corpus"
    )
