"""The results of the planted-noise experiment: tables for the terminal, the plot, the HTML page."""

from reports.page import (
    Column,
    decimal,
    findings,
    heading,
    integer,
    new_plot,
    page,
    paragraph,
    percent,
    picture,
    plot_png,
    table,
    text_table,
)

KEEP_RATES = (
    Column("source", "source"),
    Column("sequences", "scored", integer),
    Column("kept", "kept", integer),
    Column("keep_rate", "keep rate", percent),
    Column("low", "95 % from", percent),
    Column("high", "to", percent),
    Column("mean_r", "mean r", decimal),
    Column("deviation_r", "deviation", decimal),
    Column("mean_teacher_loss", "teacher loss", decimal),
    Column("mean_reference_loss", "reference loss", decimal),
)


def signed(value: float) -> str:
    """+0.123; a dash where there is no value."""
    return f"{value:+.3f}" if value == value else "–"


GAINS = (
    Column("share", "noise", percent),
    Column("noise_in_better_half", "in better half", percent),
    Column("noise_in_random_half", "in random", percent),
    Column("better_loss", "loss: better", decimal),
    Column("random_loss", "random", decimal),
    Column("gain", "gain", signed),
    Column("texts", "95 % over texts", str),
    Column("over_seeds", "95 % over seeds", str),
    Column("seeds", "each seed", str),
)
ALONE = (
    "At no noise the gain is what the selection does to ordinary text at this size; what leaving "
    "the noise out is worth is the difference to that. The sources of the held-out text show where "
    "the halves differ."
)
COPIES = (
    "All copies of the boiler-plate are one sequence with one r, so they are kept or dropped "
    "together: their interval speaks of copies of this sequence, not of other boiler-plates, and "
    "not of references with another seed."
)
INTERVALS = (
    "Gain: mean held-out loss of students on a random half minus that of students on the better "
    "half, in nats a token; above 0 the better half is the better one. Both intervals are "
    "Student's: over the held-out sequences for the mean of these seeds, and over the few seeds "
    "for the mean of these sequences. A seed is that of the initial weights and of the "
    "random half; the better half itself has none: one reference and one plant a share."
)


def gain_rows(result: dict) -> list[dict]:
    """The rows of the table of gains with intervals and seeds in words."""
    return [
        {
            **row,
            "texts": f"{signed(row['low'])} to {signed(row['high'])}",
            "over_seeds": f"{signed(row['seed_low'])} to {signed(row['seed_high'])}",
            "seeds": " ".join(signed(gain) for gain in row["seed_gains"].values()),
        }
        for row in result["gain"]
    ]


def source_table(result: dict) -> tuple[list[dict], list[Column]]:
    """(rows, columns) of the gains by source of the held-out text."""
    rows = [{"share": row["share"], **row["source_gains"]} for row in result["gain"]]
    sources = result["gain"][0]["source_gains"]
    return rows, [GAINS[0], *(Column(source, source, signed) for source in sources)]


def notes(result: dict) -> list[str]:
    """What the figures are, and what they are not."""
    return [INTERVALS, ALONE, *([COPIES] if len(result["keep_rates"]) > 2 else [])]


def terminal(result: dict) -> str:
    """Everything that is printed."""
    sentences = [*result["findings"], *notes(result)]
    return "\n\n".join(
        [
            text_table([*result["keep_rates"], *result["sources"]], KEEP_RATES),
            text_table(gain_rows(result), GAINS),
            "Gain by source of the held-out text\n" + text_table(*source_table(result)),
            "\n".join(f"* {sentence}" for sentence in sentences),
        ]
    )


def html(result: dict, png: bytes) -> str:
    """The whole page."""
    held_out = result["gain"][0]["held_out_sequences"]
    return page(
        "Planted noise: what selection keeps, and what students gain",
        [
            findings(result["findings"]),
            heading("Gain over the share of noise"),
            picture(
                png,
                f"Held-out loss on {held_out:,} clean sequences, random half minus better half. "
                "Dots: seeds. Line: their mean, with the 95 % interval over the held-out "
                "sequences.",
                "gain.csv",
            ),
            table(gain_rows(result), GAINS[:-1], "gain.csv"),
            heading("Gain by source of the held-out text"),
            table(*source_table(result), "gain.csv"),
            heading("What is kept of planted sequences"),
            table(result["keep_rates"], KEEP_RATES, "keep_rates.csv"),
            heading("What is kept of each ordinary source"),
            table(result["sources"], KEEP_RATES, "keep_rates.csv"),
            *(paragraph(note, "note") for note in notes(result)),
        ],
    )


def draw_gain(gains: list[dict]) -> bytes:
    """The gain over the share of noise."""
    figure, axes = new_plot(8, 4.4)
    shares = [100 * row["share"] for row in gains]
    means = [row["gain"] for row in gains]
    errors = [
        [row["gain"] - row["low"] for row in gains],
        [row["high"] - row["gain"] for row in gains],
    ]
    axes.axhline(0, color="black", linewidth=0.8)
    axes.errorbar(
        shares, means, errors, fmt="o-", color="#3b6fb5", linewidth=2, capsize=4,
        label="mean of the seeds, 95 % interval over held-out sequences",
    )  # fmt: skip
    for number, row in enumerate(gains):
        values = list(row["seed_gains"].values())
        axes.plot(
            [100 * row["share"] + 0.8] * len(values), values, "o", color="#e0a526", markersize=5,
            label="" if number else "each seed",
        )  # fmt: skip
    axes.set_xticks(shares, [f"{share:g} %" for share in shares])
    axes.set_xlabel("share of the sequences that is planted noise")
    axes.set_ylabel("gain of the better half, nats a token")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    return plot_png(figure)
