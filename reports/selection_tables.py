"""The tables of the report: what was selected, by source, length and share; each is a CSV file.

A table is a list of rows with equal keys. Shares and rates are of the sequences with a defined r;
those without (no token of them counts) are in a column of their own.
"""

import numpy as np

from reports.selection_sums import ALPHAS, Groups, Sums


def ratio_of(part: float, whole: float) -> float:
    """part / whole; NaN where there is nothing."""
    return float(part) / float(whole) if whole else float("nan")


def summary(sums: Sums) -> dict:
    """The figures of the headline."""
    s = {name: float(values.sum()) for name, values in sums.sources.sums.items()}
    n = sums.defined
    means = np.array([s["r"], -s["teacher"], -s["reference"]]) / max(n, 1)
    covariance = sums.products / max(n, 1) - np.outer(means, means)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0))
    return {
        "ratio": sums.ratio,
        "scored": len(sums.scored.r),
        "without_r": len(sums.scored.r) - n,
        "sequences": n,
        "kept": sums.keep,
        "tokens": int(s["tokens"]),
        "kept_tokens": int(s["kept_tokens"]),
        "threshold": sums.threshold,
        "lowest_r": sums.low,
        "highest_r": sums.high,
        "mean_r": ratio_of(s["r"], n),
        "standard_deviation_r": float(spread[0]),
        "mean_r_kept": ratio_of(s["kept_r"], sums.keep),
        "mean_r_dropped": ratio_of(s["r"] - s["kept_r"], n - sums.keep),
        "share_r_above_0": ratio_of(sums.positive, n),
        "correlation_with_teacher": ratio_of(covariance[0, 1], spread[0] * spread[1]),
        "correlation_with_reference": ratio_of(covariance[0, 2], spread[0] * spread[2]),
    }


def group_rows(groups: Groups, label: str, names: list[str]) -> list[dict]:
    """A row for every group, in their order."""
    s = groups.sums
    whole = {name: values.sum() for name, values in s.items()}
    return [
        {
            label: name,
            "sequences": int(s["sequences"][i]),
            "tokens": int(s["tokens"][i]),
            "mean_r": ratio_of(s["r"][i], s["sequences"][i]),
            "mean_teacher_loss": ratio_of(s["teacher"][i], s["sequences"][i]),
            "mean_reference_loss": ratio_of(s["reference"][i], s["sequences"][i]),
            "kept": int(s["kept"][i]),
            "kept_tokens": int(s["kept_tokens"][i]),
            "keep_rate": ratio_of(s["kept"][i], s["sequences"][i]),
            "share_before": ratio_of(s["sequences"][i], whole["sequences"]),
            "share_after": ratio_of(s["kept"][i], whole["kept"]),
            "token_share_before": ratio_of(s["tokens"][i], whole["tokens"]),
            "token_share_after": ratio_of(s["kept_tokens"][i], whole["kept_tokens"]),
        }
        for i, name in enumerate(names)
    ]


def sources(sums: Sums) -> list[dict]:
    """A row a source, the most kept first."""
    rows = group_rows(sums.sources, "source", sums.names)
    for row, count in zip(rows, sums.without_r.tolist(), strict=True):
        row["without_r"] = count
    present = [row for row in rows if row["sequences"] or row["without_r"]]
    return sorted(
        present,
        key=lambda row: (-np.nan_to_num(row["keep_rate"], nan=-1), -row["sequences"]),
    )


def lengths(sums: Sums) -> list[dict]:
    """A row a range of lengths, the shortest first."""
    limits = sums.length_limits.tolist()
    names = [f"{low + 1}–{high}" for low, high in zip([0, *limits[:-2]], limits[:-1], strict=True)]
    rows = group_rows(sums.lengths, "tokens_a_sequence", [*names, f"{limits[-1]} (full)"])
    return [row for row in rows if row["sequences"]]


def sweep(sums: Sums) -> list[dict]:
    """A row a share alpha that could be kept; the last one is the pool itself."""
    shape = (len(ALPHAS) + 1, len(sums.names))
    s = {name: values.reshape(shape) for name, values in sums.levels.sums.items()}
    present = np.flatnonzero(sums.sources.sums["sequences"])
    rows = []
    for number, alpha in enumerate((*ALPHAS, 1.0)):
        # A sequence that alpha's selection holds is in those of all larger alphas too.
        inside = slice(len(ALPHAS) - number, None)
        by_source = s["sequences"][inside].sum(axis=0)
        row = {
            "alpha": alpha,
            "threshold": [*sums.thresholds, sums.low][number],
            "sequences": int(by_source.sum()),
            "tokens": int(s["tokens"][inside].sum()),
            "mean_r": ratio_of(s["r"][inside].sum(), by_source.sum()),
        }
        for i in present:
            row[f"share {sums.names[i]}"] = ratio_of(by_source[i], by_source.sum())
        rows.append(row)
    return rows


def histogram(sums: Sums) -> list[dict]:
    """A row a bin of r: [from, to), the last one closed; by source too."""
    edges = sums.histogram_kept.edges[0].tolist()
    edges = [min(edges[0], sums.low), *edges[1:-1], max(edges[-1], sums.high)]
    by_source, kept = sums.histogram.counts, sums.histogram_kept.counts
    present = np.flatnonzero(sums.sources.sums["sequences"])
    counts = by_source.sum(axis=0)
    running = np.cumsum(counts)
    return [
        {
            "from": edges[i],
            "to": edges[i + 1],
            "sequences": int(counts[i]),
            "kept": int(kept[i]),
            "sequences_to_here": int(running[i]),
            "share_to_here": ratio_of(running[i], running[-1]),
            **{f"sequences {sums.names[j]}": int(by_source[j, i]) for j in present},
        }
        for i in range(len(counts))
    ]


def density(sums: Sums) -> list[dict]:
    """A row a cell of teacher's by reference's loss that holds a sequence.

    The outermost cells also hold what lies beyond them.
    """
    teacher, reference = sums.density.edges
    return [
        {
            "teacher_from": float(teacher[i]),
            "teacher_to": float(teacher[i + 1]),
            "reference_from": float(reference[j]),
            "reference_to": float(reference[j + 1]),
            "sequences": int(sums.density.counts[i, j]),
        }
        for i, j in np.argwhere(sums.density.counts)
    ]
