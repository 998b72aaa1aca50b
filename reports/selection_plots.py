"""The pictures of the report, each drawn from the table (the CSV file) that it names."""

import numpy as np

from reports.page import new_plot, plain, plot_png

KEPT, DROPPED, GREY = "#2a7f62", "#c0563b", "#8b95a1"
COLOURS = ("#3b6fb5", "#e0a526", "#7a5aa6", "#2a9d8f", "#a3705a", "#86a33b", "#d17fa8")
SHOWN_SOURCES = len(COLOURS)


def colours(sources: list[dict]) -> dict[str, str]:
    """A colour for each of the largest sources; the others are shown together."""
    largest = sorted(sources, key=lambda row: -row["sequences"])[:SHOWN_SOURCES]
    return {row["source"]: colour for row, colour in zip(largest, COLOURS, strict=False)}


def stack(rows: list[dict], prefix: str, shown: dict[str, str]) -> tuple[dict, list[str]]:
    """(values by label, colours) of the columns PREFIX SOURCE, the small sources added up."""
    values = {plain(name): np.array([row[f"{prefix} {name}"] for row in rows]) for name in shown}
    names = [key.removeprefix(f"{prefix} ") for key in rows[0] if key.startswith(f"{prefix} ")]
    rest = [name for name in names if name not in shown]
    if rest:
        columns = [[row[f"{prefix} {name}"] for row in rows] for name in rest]
        label = plain(rest[0]) if len(rest) == 1 else f"{len(rest)} other sources"
        values[label] = np.sum(columns, axis=0)
    return values, [*shown.values(), GREY]


def name_file(axes, file: str) -> None:
    """Say in the picture itself which table it is drawn from."""
    axes.set_title(f"numbers: {file}.csv", loc="right", fontsize=7, color=GREY, pad=10)


def keep_rates(rows: list[dict], file: str, label: str, summary: dict, title: str) -> bytes:
    """A bar a group: the share of its sequences that is kept, against that of all."""
    rows = [row for row in rows if row["sequences"]]
    figure, axes = new_plot(8, 1.3 + 0.36 * len(rows))
    whole = summary["kept"] / summary["sequences"] if summary["sequences"] else 0
    rates = [row["keep_rate"] for row in rows]
    places = range(len(rows))
    axes.barh(places, rates, color=[KEPT if rate >= whole else DROPPED for rate in rates])
    axes.axvline(whole, color="black", linewidth=1, linestyle="--")
    axes.set_title(f"{title} (dashed: all sequences, {100 * whole:.1f} %)", loc="left", pad=10)
    axes.set_xlabel(f"numbers: {file}.csv", loc="right", fontsize=7, color=GREY)
    for place, row in zip(places, rows, strict=True):
        words = f"{100 * row['keep_rate']:.1f} % of {row['sequences']:,}"
        axes.text(1.02, place, words, va="center", fontsize=9)
    axes.set_yticks(list(places), [plain(row[label]) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    ticks = np.arange(0, 1.01, 0.2)
    axes.set_xticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    return plot_png(figure)


def histogram(rows: list[dict], summary: dict, shown: dict[str, str]) -> bytes:
    """Sequences by r, stacked by source, with the threshold."""
    figure, axes = new_plot(8, 4)
    edges = drawn_edges([row["from"] for row in rows] + [rows[-1]["to"]])
    values, tints = stack(rows, "sequences", shown)
    bottom = np.zeros(len(rows))
    for (name, counts), tint in zip(values.items(), tints, strict=False):
        axes.stairs(bottom + counts, edges, baseline=bottom, fill=True, color=tint, label=name)
        bottom = bottom + counts
    mark_threshold(axes, summary)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("r = reference loss − teacher loss, nats a token")
    axes.set_ylabel("sequences")
    name_file(axes, "histogram")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return plot_png(figure)


def drawn_edges(edges: list[float]) -> np.ndarray:
    """Bin edges with outermost bins as narrow as the others, though they hold the far values."""
    edges = np.array(edges)
    if len(edges) > 3:
        width = edges[2] - edges[1]
        edges[0], edges[-1] = edges[1] - width, edges[-2] + width
    return edges


def cumulative(rows: list[dict], summary: dict) -> bytes:
    """Share of the sequences below r, with the threshold."""
    figure, axes = new_plot(8, 3.4)
    edges = drawn_edges([row["from"] for row in rows] + [rows[-1]["to"]])
    axes.plot(edges, [0, *(row["share_to_here"] for row in rows)], color="#3b6fb5", linewidth=2)
    axes.set_ylim(0, 1)
    mark_threshold(axes, summary)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.grid(alpha=0.3)
    axes.set_xlabel("r = reference loss − teacher loss, nats a token")
    axes.set_ylabel("share of sequences below r")
    name_file(axes, "histogram")
    return plot_png(figure)


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


def density(rows: list[dict], sources: list[dict], summary: dict, shown: dict[str, str]) -> bytes:
    """Sequences by teacher's and reference's loss; kept is what lies above the black line."""
    from matplotlib.colors import LogNorm

    figure, axes = new_plot(8, 5.6)
    cells, extent = cell_matrix(rows)
    image = axes.imshow(
        np.ma.masked_equal(cells.T, 0),
        cmap="Blues",
        norm=LogNorm(0.3, max(cells.max(), 2)),
        origin="lower",
        extent=extent,
        aspect="auto",
        interpolation="nearest",
    )
    figure.colorbar(image, ax=axes, label="sequences (logarithmic)")
    for slope, style, words in ((summary["threshold"], "-", "threshold"), (0, ":", "r = 0")):
        if np.isfinite(slope):
            ends = np.array(extent[:2])
            axes.plot(ends, ends + slope, color="black", linewidth=1.2, linestyle=style)
            label_line(axes, slope, extent, words)
    for row in sources:
        if row["source"] in shown and row["sequences"]:
            x, y = row["mean_teacher_loss"], row["mean_reference_loss"]
            tint, name = shown[row["source"]], plain(row["source"])
            axes.plot(x, y, "o", color=tint, markersize=9, markeredgecolor="white", label=name)
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])
    axes.set_xlabel("teacher loss, nats a token")
    axes.set_ylabel("reference loss, nats a token")
    corners = ((0.02, 0.97, "left", "top", "kept", KEPT),
               (0.98, 0.03, "right", "bottom", "dropped", DROPPED))  # fmt: skip
    for x, y, ha, va, words, tint in corners:
        axes.text(x, y, words, ha=ha, va=va, color=tint, fontsize=11, transform=axes.transAxes)
    name_file(axes, "density")
    title = "mean of a source"
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, title=title, frameon=False)
    return plot_png(figure)


def cell_matrix(rows: list[dict]) -> tuple[np.ndarray, list[float]]:
    """(sequences [teacher bins, reference bins], [left, right, bottom, top]) of the density."""
    places, extent = [], []
    for name in ("teacher", "reference"):
        starts = np.array([row[f"{name}_from"] for row in rows])
        width = rows[0][f"{name}_to"] - rows[0][f"{name}_from"]
        places.append(np.round((starts - starts.min()) / width).astype(int))
        extent += [starts.min(), starts.min() + width * (places[-1].max() + 1)]
    cells = np.zeros([place.max() + 1 for place in places])
    cells[tuple(places)] = [row["sequences"] for row in rows]
    return cells, [float(limit) for limit in extent]


def label_line(axes, offset: float, extent: list[float], words: str) -> None:
    """Name the line reference = teacher + offset where it leaves the picture, if it is inside."""
    left, right, bottom, top = extent
    x = min(right, top - offset)
    if left < x and x + offset > bottom:
        style = {"ha": "right", "va": "top", "fontsize": 9}
        axes.annotate(words, (x, x + offset), (-14, -4), textcoords="offset points", **style)


def sweep(rows: list[dict], shown: dict[str, str]) -> bytes:
    """Share of each source in what is kept, by the share alpha that is kept."""
    figure, axes = new_plot(8, 3.8)
    values, tints = stack(rows, "share", shown)
    alphas = [row["alpha"] for row in rows]
    axes.stackplot(alphas, *values.values(), labels=list(values), colors=tints)
    axes.set_xlim(alphas[0], alphas[-1])
    axes.set_ylim(0, 1)
    axes.set_xticks(alphas)
    axes.set_xlabel("alpha, the share that is kept (1.0: the whole pool)")
    axes.set_ylabel("share of what is kept")
    name_file(axes, "sweep")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return plot_png(figure)
