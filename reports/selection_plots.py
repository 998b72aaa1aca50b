"""The pictures of a selection's report.

Shares come from the exact tables; distributions are drawn from the pool's sample.
"""

import numpy as np

from reports.plots import DROPPED, GREY, KEPT, label, new_plot, png
from reports.selection_pool import ALPHAS, Pool

COLOURS = ("#3b6fb5", "#e0a526", "#7a5aa6", "#2a9d8f", "#a3705a", "#86a33b", "#d17fa8")
BINS = 80
TAIL = 0.001


def colours(sources: list[dict]) -> dict[str, str]:
    """A colour for each of the largest sources; the others are shown together."""
    largest = sorted(sources, key=lambda row: -row["sequences"])
    return {row["source"]: colour for row, colour in zip(largest, COLOURS, strict=False)}


def groups(names: list[str], shown: dict[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    """(sources by label, colours): the shown ones each, all others together."""
    found = {label(name): [name] for name in shown}
    rest = [name for name in names if name not in shown]
    if rest:
        found[label(rest[0]) if len(rest) == 1 else f"{len(rest)} other sources"] = rest
    return found, [*shown.values(), GREY][: len(found)]


def keep_rates(rows: list[dict], key: str, summary: dict, title: str) -> bytes:
    """One bar per group: the share of its sequences that is kept, against that of all."""
    rows = [row for row in rows if row["sequences"]]
    figure, axes = new_plot(8, 1.3 + 0.36 * len(rows))
    whole = summary["kept"] / summary["sequences"]
    rates = [row["keep_rate"] for row in rows]
    axes.barh(range(len(rows)), rates, color=[KEPT if rate >= whole else DROPPED for rate in rates])
    axes.axvline(whole, color="black", linewidth=1, linestyle="--")
    axes.set_title(f"{title} (dashed: all sequences, {100 * whole:.1f} %)", loc="left", pad=10)
    for place, row in enumerate(rows):
        words = f"{100 * row['keep_rate']:.1f} % of {row['sequences']:,}"
        axes.text(1.02, place, words, va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [label(row[key]) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    ticks = np.arange(0, 1.01, 0.2)
    axes.set_xticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    return png(figure)


def limits(values: np.ndarray) -> tuple[float, float]:
    """The range that is drawn: all but TAIL of the values on each side."""
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    return (float(low), float(high)) if low < high else (low - 0.5, high + 0.5)


def histogram(pool: Pool, summary: dict, shown: dict[str, str]) -> bytes:
    """The sample by r, stacked by source, with the threshold."""
    figure, axes = new_plot(8, 4)
    box, r, source = limits(pool.drawn["r"]), pool.drawn["r"], pool.drawn["source"]
    stacks, tints = groups([pool.names[i] for i in np.unique(source)], shown)
    parts = [r[np.isin(source, list(map(pool.names.index, part)))] for part in stacks.values()]
    style = {"histtype": "stepfilled", "stacked": True, "color": tints, "label": list(stacks)}
    axes.hist(parts, BINS, box, **style)
    mark_threshold(axes, summary)
    axes.set_xlim(box)
    axes.set_xlabel("r = reference loss − teacher loss, nats per token")
    axes.set_ylabel("sequences of the sample")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return png(figure)


def mark_threshold(axes, summary: dict) -> None:
    """A line at the threshold; what is right of it is kept."""
    threshold = summary["threshold"]
    if not np.isfinite(threshold):
        return
    axes.axvline(threshold, color="black", linewidth=1.2)
    top = axes.get_ylim()[1]
    axes.set_ylim(0, 1.12 * top)
    style = {"fontsize": 9, "va": "top"}
    axes.text(threshold, 1.11 * top, f"  kept: r ≥ {threshold:.3f} →", color=KEPT, **style)
    axes.text(threshold, 1.11 * top, "← dropped  ", color=DROPPED, ha="right", **style)


def density(pool: Pool, sources: list[dict], summary: dict, shown: dict[str, str]) -> bytes:
    """The sample by teacher's and reference's loss; kept is what is above the black line."""
    figure, axes = new_plot(8, 5.6)
    losses = [pool.drawn[role] for role in ("teacher", "reference")]
    boxes = [limits(values) for values in losses]
    extent = [*boxes[0], *boxes[1]]
    style = {"bins": "log", "mincnt": 1, "vmin": 0.3, "cmap": "Blues"}
    cells = axes.hexbin(*losses, gridsize=BINS, extent=extent, **style)
    figure.colorbar(cells, ax=axes, label="sequences of the sample (logarithmic)")
    ends = np.array(boxes[0])
    for offset, style, words in ((summary["threshold"], "-", "threshold"), (0, ":", "r = 0")):
        axes.plot(ends, ends + offset, color="black", linewidth=1.2, linestyle=style, label=words)
    for row in sources:
        if row["source"] in shown and row["sequences"]:
            x, y = row["mean_teacher_loss"], row["mean_reference_loss"]
            tint, name = shown[row["source"]], label(row["source"])
            axes.plot(x, y, "o", color=tint, markersize=9, markeredgecolor="white", label=name)
    axes.set_xlim(boxes[0])
    axes.set_ylim(boxes[1])
    axes.set_xlabel("teacher loss, nats per token")
    axes.set_ylabel("reference loss, nats per token")
    style = {"fontsize": 11, "transform": axes.transAxes}
    axes.text(0.02, 0.97, "kept", ha="left", va="top", color=KEPT, **style)
    axes.text(0.98, 0.03, "dropped", ha="right", va="bottom", color=DROPPED, **style)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return png(figure)


def sweep(rows: list[dict], shown: dict[str, str]) -> bytes:
    """Share of each source in what is kept, by the share alpha that is kept."""
    figure, axes = new_plot(8, 3.8)
    names = [key.removeprefix("share ") for key in rows[0] if key.startswith("share ")]
    stacks, tints = groups(names, shown)
    values = [[sum(row[f"share {n}"] for n in part) for row in rows] for part in stacks.values()]
    alphas = [row["alpha"] for row in rows]
    axes.stackplot(alphas, *values, labels=list(stacks), colors=tints)
    axes.set_xlim(alphas[0], alphas[-1])
    axes.set_ylim(0, 1)
    axes.set_xticks(ALPHAS)
    axes.set_xlabel("alpha, the share that is kept (1.0: the whole pool)")
    axes.set_ylabel("share of what is kept")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return png(figure)
