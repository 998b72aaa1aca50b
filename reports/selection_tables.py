"""The tables of a selection's report: what is kept, by source, length and share.

A table is a list of rows with equal keys. Shares and rates are of the sequences with a defined r;
those without (no token of them counts) are in a column of their own.
"""

import numpy as np

from reports.selection_pool import Pool

SOURCE, LENGTH = 1, 2  # axes of a pool's sums


def ratio_of(part: float, whole: float) -> float:
    """part / whole; NaN where there is nothing."""
    return float(part) / float(whole) if whole else float("nan")


def inside(pool: Pool, share: float, axis: int) -> dict[str, np.ndarray]:
    """The sums over what the share's selection keeps, by source or by length."""
    levels = slice(0, pool.shares.index(share) + 1)
    others = tuple({0, SOURCE, LENGTH} - {axis})
    return {name: values[levels].sum(axis=others) for name, values in pool.sums.items()}


def summary(pool: Pool) -> dict:
    """The figures of the headline; all but the correlations are exact."""
    everything = {name: x.sum() for name, x in inside(pool, 1.0, SOURCE).items()}
    kept = {name: x.sum() for name, x in inside(pool, pool.ratio, SOURCE).items()}
    drawn = pool.drawn
    varies = len(drawn["r"]) > 1
    return {
        "ratio": pool.ratio,
        "scored": len(pool.r),
        "without_r": len(pool.r) - pool.defined,
        "sequences": pool.defined,
        "kept": pool.keep,
        "tokens": int(everything["tokens"]),
        "kept_tokens": int(kept["tokens"]),
        "threshold": pool.thresholds[pool.shares.index(pool.ratio)],
        "mean_r": ratio_of(everything["r"], pool.defined),
        "mean_r_kept": ratio_of(kept["r"], pool.keep),
        "mean_r_dropped": ratio_of(everything["r"] - kept["r"], pool.defined - pool.keep),
        "share_r_above_0": ratio_of(np.count_nonzero(pool.r > 0), pool.defined),
        "drawn": len(drawn["r"]),
        **{
            f"correlation_with_{role}": correlation(drawn["r"], -drawn[role]) if varies else np.nan
            for role in ("teacher", "reference")
        },
    }


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation; NaN where one of them is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(x, y)[0, 1])


def group_rows(pool: Pool, axis: int, label: str, names: list[str]) -> list[dict]:
    """One row per source or length bin, in their order."""
    s, kept = inside(pool, 1.0, axis), inside(pool, pool.ratio, axis)
    without_r = pool.sums["sequences"][-1].sum(axis=2 - axis)
    return [
        {
            label: name,
            "sequences": int(count),
            "tokens": int(s["tokens"][i]),
            "mean_r": ratio_of(s["r"][i], count),
            "mean_teacher_loss": ratio_of(s["teacher"][i], count),
            "mean_reference_loss": ratio_of(s["reference"][i], count),
            "kept": int(kept["sequences"][i]),
            "kept_tokens": int(kept["tokens"][i]),
            "keep_rate": ratio_of(kept["sequences"][i], count),
            "share_before": ratio_of(count, pool.defined),
            "share_after": ratio_of(kept["sequences"][i], pool.keep),
            "without_r": int(without_r[i]),
        }
        for i, (name, count) in enumerate(zip(names, s["sequences"], strict=True))
        if count or without_r[i]
    ]


def sources(pool: Pool) -> list[dict]:
    """One row per source, the most kept first."""
    return sorted(
        group_rows(pool, SOURCE, "source", pool.names),
        key=lambda row: (-np.nan_to_num(row["keep_rate"], nan=-1), -row["sequences"]),
    )


def lengths(pool: Pool) -> list[dict]:
    """One row per range of lengths, the shortest first."""
    limits = pool.length_limits.tolist()
    names = [f"{low + 1}–{high}" for low, high in zip([0, *limits[:-2]], limits[:-1], strict=True)]
    rows = group_rows(pool, LENGTH, "tokens_per_sequence", [*names, f"{limits[-1]} (full)"])
    return [row for row in rows if row["sequences"]]


def sweep(pool: Pool) -> list[dict]:
    """One row per share alpha that could be kept; the last one is the pool itself."""
    present = np.flatnonzero(inside(pool, 1.0, SOURCE)["sequences"])
    rows = []
    for alpha, keep, threshold in zip(pool.shares, pool.keeps, pool.thresholds, strict=True):
        s = inside(pool, alpha, SOURCE)
        row = {
            "alpha": alpha,
            "threshold": threshold,
            "sequences": keep,
            "tokens": int(s["tokens"].sum()),
            "mean_r": ratio_of(s["r"].sum(), keep),
        }
        row |= {f"share {pool.names[i]}": ratio_of(s["sequences"][i], keep) for i in present}
        rows.append(row)
    return rows
