"""The page of the planted-noise experiment."""

from reports import plots
from reports.page import (
    Column,
    Findings,
    Heading,
    Page,
    Picture,
    Table,
    Text,
    decimal,
    integer,
    percent,
    signed,
)

KEEP_RATES = (
    Column("source", "source"),
    Column("sequences", "scored", integer),
    Column("kept", "kept", integer),
    Column("keep_rate", "keep rate", percent),
    Column("low", "95 % from", percent),
    Column("high", "to", percent),
    Column("mean_r", "mean r", decimal),
    Column("mean_teacher_loss", "teacher loss", decimal),
    Column("mean_reference_loss", "reference loss", decimal),
)
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
    "half, in nats per token; above 0 the better half is the better one. Both intervals are "
    "Student's: over the held-out sequences for the mean of these seeds, and over the few seeds "
    "for the mean of these sequences. A seed is that of the initial weights and of the "
    "random half; the better half itself has none: one reference and one plant per share."
)


def each_seed(row: dict) -> list[float]:
    """The gains of the seeds, in a row of the gains."""
    return [gain for name, gain in row.items() if name.startswith("gain_seed_")]


def gain_rows(gains: list[dict]) -> list[dict]:
    """The rows of the table of gains with intervals and seeds in words."""
    return [
        {
            **row,
            "texts": f"{signed(row['low'])} to {signed(row['high'])}",
            "over_seeds": f"{signed(row['seed_low'])} to {signed(row['seed_high'])}",
            "seeds": " ".join(map(signed, each_seed(row))),
        }
        for row in gains
    ]


def page(result: dict, png: bytes) -> Page:
    """The whole page; png: the picture of draw_gain."""
    gains = result["gain"]
    sources = [name for name in gains[0] if name.startswith("gain ")]
    by_source = [GAINS[0], *(Column(name, name.removeprefix("gain "), signed) for name in sources)]
    caption = (
        f"Held-out loss on {gains[0]['held_out_sequences']:,} clean sequences, random "
        "half minus better half. Dots: seeds. Line: their mean, with the 95 % interval over the "
        "held-out sequences."
    )
    notes = [INTERVALS, ALONE, *([COPIES] if len(result["keep_rates"]) > 2 else [])]
    return Page(
        "Planted noise: what selection keeps, and what students gain",
        [
            Findings(result["findings"]),
            Heading("Gain over the share of noise"),
            Picture(png, caption, "gain.csv"),
            Table(gain_rows(gains), GAINS, "gain.csv"),
            Heading("Gain by source of the held-out text"),
            Table(gains, by_source, "gain.csv"),
            Heading("What is kept of planted sequences"),
            Table(result["keep_rates"], KEEP_RATES, "keep_rates.csv"),
            Heading("What is kept of each ordinary source"),
            Table(result["sources"], KEEP_RATES, "keep_rates.csv"),
            *(Text(note, "note") for note in notes),
        ],
    )


def draw_gain(gains: list[dict]) -> bytes:
    """The gain over the share of noise, as PNG."""
    figure, axes = plots.new_plot(8, 4.4)
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
        values = each_seed(row)
        axes.plot(
            [100 * row["share"] + 0.8] * len(values), values, "o", color="#e0a526", markersize=5,
            label="" if number else "each seed",
        )  # fmt: skip
    axes.set_xticks(shares, [f"{share:g} %" for share in shares])
    axes.set_xlabel("share of the sequences that is planted noise")
    axes.set_ylabel("gain of the better half, nats per token")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper left")
    return plots.png(figure)
