"""How far a proxy agrees with the r that it stands for, and what it costs.

Compared are the rows that the proxy has scored, that have an r and that it was not trained on:
labelled shards outside its DATA_DIR. agreement: the share of these rows that the true r and the
predicted one keep or drop alike, if each keeps the ALPHA of them that it ranks highest.
"""

from pathlib import Path

import numpy as np

from data_utils import artefact, atomic_files
from data_utils.corpus import Corpus
from data_utils.differences import FILE, open_store
from data_utils.errors import InputError
from miniplm.ranking import keep_count, top
from miniplm.scores import Predictions
from pretrain.flops import corpus_flops

ALPHA = 0.5
TRAIN = "train a proxy with scripts/miniplm/proxy/train.sh"


def labels_of(proxy_folder: Path) -> tuple[artefact.Manifest, artefact.Manifest | None]:
    """(the proxy's manifest, that of its labels' store or None where that is not there any more).

    InputError for a model that was not trained on labels.
    """
    manifest = artefact.read_manifest(proxy_folder)
    if manifest is None or "labels" not in manifest.inputs:
        what = "the model was not trained to predict difference scores"
        raise InputError(what, where=proxy_folder, fix=TRAIN)
    entry = manifest.inputs["labels"]
    place = artefact.input_place(proxy_folder, entry)
    found = open_store(place) if (place / artefact.MANIFEST).is_file() else None
    return manifest, found if found and found.fingerprint == entry["fingerprint"] else None


def compare(store: Path, corpus: Corpus, proxy_folder: Path) -> None:
    """Print and write what is known of a finished store; corpus: opened on the scored shards."""
    proxy, labels = labels_of(proxy_folder)
    predictions = Predictions(store)
    found = {"scores": predictions.identity["fingerprint"], "alpha": ALPHA, "rows": None}
    if labels is not None and labels.input_fingerprint("corpus") == corpus.identity["fingerprint"]:
        r, predicted = held_out(predictions, corpus, labels, proxy)
        found |= figures(r, predicted)
        found |= flops(predictions, corpus, labels, proxy)
    path = store.with_name(f"{store.name}-report") / "agreement.json"
    path.parent.mkdir(exist_ok=True)
    atomic_files.write_json(path, found)
    for line in sentences(found):
        print(line)


def held_out(
    predictions: Predictions, corpus: Corpus, labels: artefact.Manifest, proxy: artefact.Manifest
) -> tuple[np.ndarray, np.ndarray]:
    """(r, predicted r) of the rows that have both and that the proxy was not trained on."""
    first, count = labels.counts["first_row"], labels.counts["sequences"]
    r = np.load(labels.folder / FILE, allow_pickle=False)
    predicted = predictions.at(first, count)
    begin, end = proxy.trained_on(corpus.identity["fingerprint"]) or (0, 0)
    if begin < end:
        part = Corpus(corpus.folder, shards=(begin, end))
        r[part.first_row - first : part.first_row - first + len(part)] = np.nan
    known = ~np.isnan(r) & ~np.isnan(predicted)
    return r[known], predicted[known]


def figures(r: np.ndarray, predicted: np.ndarray) -> dict:
    """rows, pearson, spearman and agreement of two values of the same rows, [n] float64 each.

    None where they are not defined: of fewer than two rows, or of values that are all the same.
    """
    found = {"rows": len(r), "pearson": None, "spearman": None, "agreement": None}
    if len(r) < 2:
        return found
    keep = keep_count(ALPHA, len(r))
    masks = [np.isin(np.arange(len(r)), top(values, keep)) for values in (r, predicted)]
    found["agreement"] = float(np.mean(masks[0] == masks[1]))
    if r.std() > 0 and predicted.std() > 0:
        found["pearson"] = float(np.corrcoef(r, predicted)[0, 1])
        found["spearman"] = float(np.corrcoef(mean_ranks(r), mean_ranks(predicted))[0, 1])
    return found


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value, equal ones sharing the mean of theirs, [n] float64."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def flops(
    predictions: Predictions, corpus: Corpus, labels: artefact.Manifest, proxy: artefact.Manifest
) -> dict:
    """What the proxy and its labels cost, and what the teacher's pass over the same rows would.

    From the manifests; the teacher's pass from its configuration, if that is still there and gives
    what its own store of the labelled rows has counted. None: not known.
    """
    stores = [read_input(labels, role) for role in ("teacher", "reference")]
    passes = [store.counts.get("flops") if store else None for store in stores]
    found = {
        "labels_flops": None if None in passes else sum(passes),
        "training_flops": proxy.counts.get("student_flops"),
        "scoring_flops": predictions.manifest.counts.get("flops"),
        "teacher_flops": teacher_flops(stores[0], corpus) if stores[0] else None,
    }
    proxy_flops = [found["training_flops"], found["scoring_flops"]]
    for name, parts in (
        ("proxy_share", proxy_flops),
        ("share_with_labels", [*proxy_flops, found["labels_flops"]]),
    ):
        known = None not in [*parts, found["teacher_flops"]]
        found[name] = sum(parts) / found["teacher_flops"] if known else None
    return found


def read_input(manifest: artefact.Manifest, name: str) -> artefact.Manifest | None:
    """The manifest of an input, None where it is not there or another one now."""
    entry = manifest.inputs[name]
    place = artefact.input_place(manifest.folder, entry)
    found = artefact.read_manifest(place) if place.is_dir() else None
    return found if found and found.fingerprint == entry["fingerprint"] else None


def teacher_flops(store: artefact.Manifest, corpus: Corpus) -> float | None:
    """FLOPs of the teacher's pass over the corpus; store: its scores of some of the same corpus."""
    folder = artefact.input_place(store.folder, store.inputs["model"])
    if not (folder / "config.json").is_file():
        return None
    scored = Corpus(corpus.folder, shards=tuple(store.content["shards"]))
    if corpus_flops(folder, scored) != store.counts.get("flops"):
        return None
    return corpus_flops(folder, corpus)


def sentences(found: dict) -> list[str]:
    """The figures for people."""
    if found["rows"] is None:
        return ["Not compared: the labels are not there any more, or are of another corpus."]
    if not found["rows"]:
        return [
            "Not compared: no scored row has an r that the proxy was not trained on. Leave a "
            "labelled shard out of its DATA_DIR and inside SCORE_SHARDS."
        ]
    parts = [
        f"{name} {found[name]:.3f}" for name in ("pearson", "spearman") if found[name] is not None
    ]
    if found["agreement"] is not None:
        parts.append(f"{found['agreement']:.1%} of the keep decisions at alpha {ALPHA:g} alike")
    lines = [f"On {found['rows']:,} rows that it was not trained on: {', '.join(parts)}"]
    if found["share_with_labels"] is not None:
        proxy = found["training_flops"] + found["scoring_flops"]
        lines.append(
            f"FLOPs of the proxy (training and scoring): {proxy:.3g}, {found['proxy_share']:.2%} "
            f"of the teacher's pass over the same rows ({found['teacher_flops']:.3g}); with the "
            f"passes over its labels {found['share_with_labels']:.2%}"
        )
    return lines
