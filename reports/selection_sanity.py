"""Whether a difference store looks as the paper's does: its figures beside the paper's own."""

from pathlib import Path

import numpy as np

from data_utils import artefact
from miniplm.criteria import Differences
from miniplm.ranking import count_defined, keep_count, top
from reports.page import Column, decimal, percent

ALPHA = 0.5
# arXiv 2410.17215 on the Pile, teacher Qwen1.5-1.8B, reference 104M. The threshold lies between the
# r of its printed examples: dropped ones have 0.04 and 0.07, kept ones 1.02 to 3.23. Agreement: by
# the reference's size, with the keep decisions by a 500M model's scores.
PAPER = {
    "below_0": 0.063,
    "threshold": (0.07, 1.02),
    "agreement": {"45M": 0.806, "104M": 0.874, "200M": 0.895},
}
COLUMNS = (Column("figure", "figure"), Column("here", "here"), Column("paper", "paper, the Pile"))
ABOUT = (
    "The paper's figures are of another corpus and larger models: they say what to expect, not "
    "what is right. Two references that rank at random would agree in half of the sequences. "
    "Scores by a second reference beside these (REF_NAME) add a line with their agreement."
)


def figures(store: Path, manifest: artefact.Manifest, r: np.ndarray) -> dict:
    """below_0, threshold (NaN where nothing would be kept) and agreement by reference at ALPHA.

    r: [n] float64. agreement: the share of the sequences with an r that another reference's store
    of differences, beside this one, of the same rows and teacher, keeps or drops alike.
    """
    ranked, mine = ~np.isnan(r), kept(r)
    return {
        "below_0": float(np.mean(r[ranked] < 0)) if ranked.any() else np.nan,
        "threshold": float(r[mine].min()) if mine.any() else np.nan,
        "agreement": {
            name: float(np.mean((mine == kept(other))[ranked]))
            for name, other in (others(store, manifest) if mine.any() else ())
        },
    }


def kept(r: np.ndarray) -> np.ndarray:
    """Which of the rows ALPHA keeps, [n] bool."""
    mask = np.zeros(len(r), bool)
    mask[top(r, keep_count(ALPHA, count_defined(r)))] = True
    return mask


def others(store: Path, manifest: artefact.Manifest) -> list[tuple[str, np.ndarray]]:
    """(name of the reference, its r) of the stores beside this one with another reference."""
    found = []
    for path in sorted(store.parent.glob(f"*/{artefact.MANIFEST}")):
        other = artefact.read_manifest(path.parent)
        same = all(
            other.content.get(name) == manifest.content.get(name) for name in ("type", "shards")
        ) and all(
            other.input_fingerprint(name) == manifest.input_fingerprint(name)
            for name in ("corpus", "teacher")
        )
        another = other.input_fingerprint("reference") != manifest.input_fingerprint("reference")
        if same and another:
            artefact.check_files(other, f"remove {other.folder}", contents=False)
            name = Path(other.inputs["reference"]["path"]).name
            found.append((name, Differences(other.folder, other.inputs).r))
    return found


def table(found: dict) -> list[dict]:
    """The figures beside the paper's, as text."""
    low, high = PAPER["threshold"]
    rows = [
        ("r below 0", percent(found["below_0"]), percent(PAPER["below_0"])),
        (
            f"threshold at alpha {ALPHA:g}, nats per token",
            decimal(found["threshold"]),
            f"between {low} and {high}",
        ),
    ]
    sizes = PAPER["agreement"]
    theirs = " / ".join(f"{100 * share:.1f}" for share in sizes.values())
    rows += [
        (
            f"keep decisions shared with reference {name} at alpha {ALPHA:g}",
            percent(share),
            f"{theirs} % ({' / '.join(sizes)} with a 500M)",
        )
        for name, share in found["agreement"].items()
    ]
    return [{"figure": figure, "here": here, "paper": paper} for figure, here, paper in rows]
