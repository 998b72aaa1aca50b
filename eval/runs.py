"""Trained runs with the held-out losses that scripts/eval/lm.sh wrote of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_utils import artefact, atomic_files
from data_utils.corpus import Corpus, recorded_corpus
from data_utils.errors import InputError
from data_utils.flags import under

RESULTS = "results/eval/lm"
EVALUATE = "run scripts/eval/lm.sh BASE_PATH --model-path MODEL --ckpt-name NAME"
TRAIN = "give the folder of a finished run of pretrain/train.py"


@dataclass
class Run:
    """A trained student: its manifest, the corpus it was trained on and its held-out losses."""

    name: str
    folder: Path
    manifest: artefact.Manifest
    corpus: Corpus
    result: dict
    losses: np.ndarray

    @property
    def tokens(self) -> tuple:
        """Which tokens its losses are per: the tokenizer, and whether rows begin with a BOS."""
        known = self.corpus.carried()
        return known.get("tokenizer"), bool(known.get("add_bos"))

    def described(self) -> dict:
        """What should be equal in runs that are compared: the settings and the amount of data."""
        seen = min(len(self.corpus), self.manifest.counts["sequences"])
        return self.manifest.content | {"number of unique sequences": seen}


def read_runs(base: Path, folders: dict[str, str]) -> list[Run]:
    """The runs by name; InputError if their losses cannot be paired with those of the last one.

    Those of another tokenizer are never paired.
    """
    runs = [read_run(base, name, under(base, folder)) for name, folder in folders.items()]
    held_out = [f"{len(r.losses)} of {r.result['corpus']['fingerprint'][:12]}" for r in runs]
    for run, found in zip(runs, held_out, strict=True):
        if run.tokens == runs[-1].tokens and (found != held_out[-1] or len(run.losses) < 2):
            raise InputError(
                f"{run.name} and {runs[-1].name} need losses of the same two sequences or more",
                where=base / RESULTS / f"{run.name}.json",
                expected=held_out[-1],
                found=found,
                fix=f"{EVALUATE} for both with the same DATA_DIR and --limit",
            )
    return runs


def read_run(base: Path, name: str, folder: Path) -> Run:
    """A run and its held-out losses; InputError if they are missing or another model's."""
    manifest = artefact.require(folder, "model", TRAIN)
    if manifest is None or "sequences" not in manifest.counts:
        what = "the model's manifest does not say what it was trained on"
        raise InputError(what, where=folder, fix=TRAIN)
    source, what = manifest.inputs["corpus"], f"that {folder} was trained on"
    corpus = recorded_corpus(folder, source, what, "put the corpus of the run back")
    path = base / RESULTS / f"{name}.json"
    if not path.is_file() or not path.with_suffix(".npy").is_file():
        raise InputError(f"there are no held-out losses for {name}", where=path, fix=EVALUATE)
    result = atomic_files.read_json(path, f"{EVALUATE} again")
    losses = np.load(path.with_suffix(".npy"), allow_pickle=False)
    expected = (manifest.fingerprint, len(losses))
    found = (result["model"]["fingerprint"], result["sequences"])
    if found != expected or abs(losses.mean() - result["loss"]) > 1e-9:
        raise InputError(
            f"the held-out losses, .json and .npy, are not both of the model {folder}",
            where=path,
            expected=f"{len(losses)} losses, mean {losses.mean():.9f}, of {expected[0][:12]}",
            found=f"{found[1]}, mean {result['loss']:.9f}, of {found[0][:12]}",
            fix=f"{EVALUATE} again",
        )
    return Run(name, folder, manifest, corpus, result, losses)
