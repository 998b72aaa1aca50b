"""Compare trained students with a control on held-out text.

    python3 eval/compare.py BASE_PATH --runs better_half=results/miniplm/qwen/7M,random_half=...

For each run it reads the model's folder (manifest.json, metrics.jsonl) and what scripts/eval/lm.sh
wrote under its name in results/eval/lm (NAME.json, NAME.npy); with --scores also the report beside
a difference store, with --stages a list of stages and their times. It prints the tables and writes
--report (HTML, needs no other file) and the same figures beside it as JSON.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import math
from dataclasses import dataclass

import numpy as np

from data_utils import artefact, atomic_files
from data_utils.corpus import recorded_corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import check_name
from eval import compare_page
from reports import html_page, terminal
from reports.files import save

EVALUATE = "run scripts/eval/lm.sh BASE_PATH --model-path MODEL --ckpt-name NAME"
TRAIN = "give the folder of a finished run of pretrain/train.py"


@dataclass
class Settings:
    """Compare trained students on held-out text."""

    base_path: str = flag(".", "folder that contains results/ and processed_data/")
    runs: str = flag("", "NAME=MODEL_FOLDER,NAME=MODEL_FOLDER,...")
    control: str = flag("", "name of the run to compare with; default: the last of --runs")
    eval: str = flag("results/eval/lm", "folder of the held-out losses, NAME.json and NAME.npy")
    scores: str = flag("", "difference store whose report is shown too")
    planted: str = flag("", "sources that were planted, to be told apart: NAME,NAME,...")
    stages: str = flag("", "list of stages, tab-separated: stage, artefact, ..., seconds")
    report: str = flag("report.html", "the page to write; the figures go beside it as JSON")

    def __post_init__(self) -> None:
        pairs = [item.partition("=") for item in self.runs.split(",")]
        self.folders = {name: path for name, _, path in pairs}
        if not all(name and path for name, _, path in pairs) or len(self.folders) < 2:
            raise ValueError("--runs needs at least two runs: NAME=FOLDER,NAME=FOLDER")
        if len(self.folders) < len(pairs):
            raise ValueError("--runs names a run twice")
        for name in self.folders:
            check_name("a name in --runs", name)
        self.control = self.control or pairs[-1][0]
        if self.control not in self.folders:
            raise ValueError(f"--control {self.control} is not in {', '.join(self.folders)}")


@dataclass
class Run:
    """A trained student: its manifest, the corpus it saw and its held-out losses."""

    name: str
    folder: Path
    manifest: artefact.Manifest
    unique_sequences: int
    unique_tokens: int
    epochs: float
    result: dict
    losses: np.ndarray


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    results = under(base, settings.eval)
    runs = {
        name: read_run(name, under(base, path), results) for name, path in settings.folders.items()
    }
    control = runs[settings.control]
    for run in runs.values():
        check_comparable(run, control, results)
    selection = None
    if settings.scores:
        planted = settings.planted.split(",")
        selection = compare_page.read_selection(under(base, settings.scores), planted)
    rows = [row(run, control) for run in runs.values()]
    report = {
        "control": control.name,
        "held_out": {"sequences": len(control.losses), "corpus": control.result["corpus"]},
        "runs": rows,
        "findings": [verdict(r, control.name) for r in rows if r["student"] != control.name],
        "unequal": unequal(runs, control),
        "sources": selection.sources if selection else [],
        "stages": read_stages(under(base, settings.stages)) if settings.stages else [],
    }
    folders = {run.name: run.folder for run in runs.values()}
    page = compare_page.page(report, selection, folders)
    print(terminal.render(page))
    path = under(base, settings.report)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, html_page.render(page))
    atomic_files.write_json(path.with_suffix(".json"), report)
    print(f"\nReport: {path}, its figures: {path.with_suffix('.json')}")


def read_run(name: str, folder: Path, results: Path) -> Run:
    """Read a run and its held-out losses; losses of another model are an InputError."""
    manifest = artefact.require(folder, "model", TRAIN)
    if manifest is None or "sequences" not in manifest.counts:
        raise InputError(
            "the model's manifest does not say what it was trained on", where=folder, fix=TRAIN
        )
    trained, source = manifest.counts, manifest.inputs["corpus"]
    what = f"that {folder} was trained on"
    corpus = recorded_corpus(folder, source, what, "put the corpus of the run back")
    seen = min(len(corpus), trained["sequences"])
    result, losses = read_losses(name, results)
    if result["model"]["fingerprint"] != manifest.fingerprint:
        raise InputError(
            f"the held-out losses are not those of the model {folder}",
            where=results / f"{name}.json",
            expected=f"model {manifest.fingerprint[:12]}",
            found=result["model"]["fingerprint"][:12],
            fix=f"{EVALUATE} again",
        )
    unique_tokens = trained["tokens"]  # within the first epoch each is used once
    if seen == len(corpus):
        unique_tokens = sum(int(shard.lengths.sum(dtype=np.int64)) for shard in corpus.shards)
    epochs = trained["sequences"] / len(corpus)
    return Run(name, folder, manifest, seen, unique_tokens, epochs, result, losses)


def read_losses(name: str, results: Path) -> tuple[dict, np.ndarray]:
    """(NAME.json, NAME.npy) as eval/lm.py wrote them."""
    path = results / f"{name}.json"
    if not path.is_file() or not path.with_suffix(".npy").is_file():
        raise InputError(f"there are no held-out losses for {name}", where=path, fix=EVALUATE)
    result = atomic_files.read_json(path, f"{EVALUATE} again")
    losses = np.load(path.with_suffix(".npy"), allow_pickle=False)
    if len(losses) != result["sequences"] or abs(losses.mean() - result["loss"]) > 1e-9:
        raise InputError(
            "the losses of the sequences do not belong to the result beside them",
            where=path.with_suffix(".npy"),
            fix=f"{EVALUATE} again",
        )
    return result, losses


def check_comparable(run: Run, control: Run, results: Path) -> None:
    """Refuse losses that cannot be paired: they must be of the same sequences, at least two."""
    if len(control.losses) < 2:
        raise InputError(
            "one held-out sequence gives no interval",
            where=results / f"{control.name}.json",
            fix=f"{EVALUATE} on more sequences",
        )
    for what, mine, its in (
        ("corpora", *(r.result["corpus"]["fingerprint"] for r in (run, control))),
        ("numbers of sequences", len(run.losses), len(control.losses)),
    ):
        if mine != its:
            raise InputError(
                f"{run.name} and {control.name} were evaluated on different {what}",
                where=results / f"{run.name}.json",
                expected=its,
                found=mine,
                fix=f"{EVALUATE} for both with the same DATA_DIR and --limit",
            )


def paired_difference(losses: np.ndarray, control: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) of losses - control: Student's 95 % interval over the sequences."""
    from scipy.stats import t

    differences = losses - control
    n, mean = len(differences), float(differences.mean())
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def row(run: Run, control: Run) -> dict:
    """A run's row of the table; differences are None for the control itself."""
    found = {
        "student": run.name,
        "model": run.result["model"]["path"],
        "unique_sequences": run.unique_sequences,
        "unique_tokens": run.unique_tokens,
        "epochs": run.epochs,
        "steps": run.manifest.counts["step"],
        "tokens": run.manifest.counts["tokens"],
        "loss": run.result["loss"],
        "perplexity": run.result["perplexity"],
        "difference": None,
        "low": None,
        "high": None,
    }
    if run is not control:
        difference = paired_difference(run.losses, control.losses)
        found |= dict(zip(("difference", "low", "high"), difference, strict=True))
    return found


def verdict(row: dict, control: str) -> str:
    """What the difference says, in a sentence."""
    size = f"{abs(row['difference']):.3f} nats per token"
    interval = f"95 % interval of the difference {row['low']:+.3f} to {row['high']:+.3f}"
    name = row["student"]
    if row["high"] < 0:
        return f"{name} is ahead of {control} by {size} ({interval})."
    if row["low"] > 0:
        return f"{name} does not beat {control}: it is behind by {size} ({interval})."
    side = "lower" if row["difference"] < 0 else "higher"
    return (
        f"{name} does not beat {control} beyond chance: its loss is {size} {side}, and the "
        f"interval includes 0 ({interval})."
    )


def unequal(runs: dict[str, Run], control: Run) -> list[str]:
    """Where the runs differ in more than the data, so that their losses say less."""
    found = []
    mine = control.manifest.content
    for run in runs.values():
        settings = run.manifest.content
        names = sorted(
            name for name in settings.keys() | mine.keys() if settings.get(name) != mine.get(name)
        )
        if run.unique_sequences != control.unique_sequences:
            names.append("number of unique sequences")
        if names:
            found.append(f"{run.name} and {control.name} differ in {', '.join(names)}.")
    return found


def read_stages(path: Path) -> list[dict]:
    """The lines of the stage list: first field, second field, and seconds, the last one."""
    if not path.is_file():
        raise InputError("there is no list of stages", where=path, fix="leave out --stages")
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            stage, place, *_, seconds = line.split("\t")
            found.append({"stage": stage, "artefact": place, "seconds": float(seconds)})
        except ValueError:
            text = f"this line is not stage, artefact, ..., seconds: {line!r}"
            raise InputError(text, where=path, fix="correct it, or leave out --stages") from None
    return found


if __name__ == "__main__":
    run(main)
