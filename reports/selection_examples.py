"""Decoded examples of the report: from the top, from the bottom and at points in between."""

import numpy as np

from data_utils.tokenizer import load_tokenizer
from miniplm.ranking import rows_at
from reports.page import visible
from reports.selection_sums import Sums

ENDS, AT_A_POINT = 4, 2  # examples
POINTS = (0.001, 0.01, 0.1, 0.5, 0.9)
LONGEST = 6000  # characters of a text that are kept


def places(defined: int) -> dict[int, str]:
    """Where each example stands, by rank; rank 0 is the highest r. A point p has p of all above."""
    points = [(f"{100 * point:g} % from the top", int(point * defined)) for point in POINTS]
    wanted = [("top", 0, ENDS), *((name, rank, AT_A_POINT) for name, rank in points)]
    found: dict[int, str] = {}
    for name, first, count in [*wanted, ("bottom", max(defined - ENDS, 0), ENDS)]:
        for rank in range(first, min(first + count, defined)):
            # In a small pool the points lie among the top ones: each sequence is shown once.
            found[rank] = f"{found[rank]}, {name}" if rank in found else name
    return dict(sorted(found.items()))


def examples(sums: Sums) -> list[dict]:
    """A row an example, from the highest r to the lowest."""
    scored = sums.scored
    wanted = places(sums.defined)
    rows = np.array(rows_at(scored.r, list(wanted)), np.int64)
    folder = scored.corpus.tokenizer_folder
    tokenizer = load_tokenizer(folder) if folder else None
    teacher, reference = scored.losses(rows)
    sources = sums.source_of(rows)
    found = []
    for i, (rank, place) in enumerate(wanted.items()):
        row = int(rows[i])
        shard, inside = scored.corpus.locate(row)
        tokens = scored.corpus.row(row)
        shown = decode(tokens.tolist(), tokenizer)
        found.append(
            {
                "place": place,
                "rank": rank + 1,
                "kept": int(rank < sums.keep),
                "row": row,
                "shard": shard.prefix.name,
                "row_in_shard": inside,
                "source": sums.names[sources[i]],
                "r": float(scored.r[row]),
                "teacher_loss": float(teacher[i]),
                "reference_loss": float(reference[i]),
                "tokens": len(tokens),
                "text": shown if len(shown) <= LONGEST else shown[:LONGEST] + " …",
            }
        )
    return found


def decode(tokens: list[int], tokenizer) -> str:
    """The text of a sequence, special tokens kept; the token ids where there is no tokenizer."""
    if tokenizer is None:
        return "token ids " + " ".join(map(str, tokens))
    shown = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return visible(shown)
