"""The pictures of a selection's report: exact shares; distributions of the pool's sample."""

import numpy as np

from reports.plots import DROPPED, KEPT, label, new_plot, png
from reports.selection_tables import Pool

BINS = 80
TAIL = 0.001
SHOWN = 7  # sources with a colour of their own


def draw(pool: Pool, sources: list[dict], by_r: bool) -> dict[str, bytes]:
    """All pictures by name; sources: the table; by_r: whether a threshold of r is what decides."""
    threshold = pool.thresholds[pool.shares.index(pool.ratio)] if by_r else np.nan
    return {
        "keep_rate": keep_rates(sources, pool.keep / pool.defined),
        "histogram": histogram(pool, threshold),
        "density": density(pool, threshold),
    }


def keep_rates(rows: list[dict], whole: float) -> bytes:
    """One bar per source: the share of its sequences that is kept; whole: that of all."""
    rows = [row for row in rows if row["sequences"]]
    figure, axes = new_plot(8, 1 + 0.3 * len(rows))
    rates = [row["keep_rate"] for row in rows]
    tints = [KEPT if rate >= whole else DROPPED for rate in rates]
    axes.barh(range(len(rows)), rates, color=tints)
    axes.set_yticks(range(len(rows)), [label(row["source"]) for row in rows])
    axes.axvline(whole, color="black", linewidth=1, linestyle="--")
    axes.set_title(f"Share kept (dashed: all sequences, {100 * whole:.1f} %)", loc="left")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.invert_yaxis()
    return png(figure)


def limits(values: np.ndarray) -> tuple[float, float]:
    """The range that is drawn: all but TAIL of the values on each side."""
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    return (float(low), float(high)) if low < high else (low - 0.5, high + 0.5)


def histogram(pool: Pool, threshold: float) -> bytes:
    """The sample by r, stacked by source, with the threshold or else an outline of the kept."""
    figure, axes = new_plot(8, 4)
    r, source = pool.sample["r"], pool.sample["source"]
    numbers, counts = np.unique(source, return_counts=True)
    largest = numbers[np.argsort(-counts, kind="stable")[:SHOWN]]
    parts = {label(pool.names[number]): r[source == number] for number in largest}
    if len(numbers) > SHOWN:
        parts["other sources"] = r[~np.isin(source, largest)]
    style = {"stacked": True, "histtype": "stepfilled", "label": list(parts)}
    axes.hist(list(parts.values()), BINS, limits(r), **style)
    if np.isfinite(threshold):
        axes.axvline(threshold, color="black", linewidth=1.2)
        axes.set_title(f"Kept: r ≥ {threshold:.3f}, right of the line", loc="left")
    elif np.isnan(threshold):
        kept = {"histtype": "step", "color": "black", "label": "kept"}
        axes.hist(r[pool.sample["kept"]], BINS, limits(r), **kept)
    axes.set_xlim(limits(r))
    axes.set_xlabel("r = reference loss − teacher loss, nats per token")
    axes.set_ylabel("sequences of the sample")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return png(figure)


def density(pool: Pool, threshold: float) -> bytes:
    """The sample by teacher's and reference's loss; a threshold of r keeps what is above it."""
    figure, axes = new_plot(8, 5.6)
    losses = [pool.sample[f"{role}_loss"] for role in ("teacher", "reference")]
    x, y = map(limits, losses)
    style = {"bins": "log", "mincnt": 1, "vmin": 0.3, "cmap": "Blues", "extent": [*x, *y]}
    cells = axes.hexbin(*losses, gridsize=BINS, **style)
    figure.colorbar(cells, label="sequences of the sample (logarithmic)")
    for offset, style, name in ((threshold, "-", "threshold"), (0, ":", "r = 0")):
        if np.isnan(offset):
            continue
        ends = [x[0] + offset, x[1] + offset]
        axes.plot(x, ends, color="black", linewidth=1.2, linestyle=style, label=name)
    axes.set_xlim(x)
    axes.set_ylim(y)
    axes.set_xlabel("teacher loss, nats per token")
    axes.set_ylabel("reference loss, nats per token")
    axes.legend(loc="upper left", frameon=False)
    return png(figure)
