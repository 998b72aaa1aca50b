"""Decoded examples of a selection: from the top, around the threshold and from the bottom."""

from data_utils.tokenizer import load_tokenizer
from reports.page import Example, visible
from reports.selection_tables import Pool


def examples(pool: Pool) -> list[dict]:
    """One row per example, the highest rank first."""
    folder = pool.corpus.tokenizer_folder
    tokenizer = load_tokenizer(folder) if folder else None
    found = []
    for number, (rank, place) in enumerate(pool.places.items()):
        values = {name: column[number].item() for name, column in pool.examples.items()}
        shard, inside = pool.corpus.locate(values["row"])
        row = {
            **values,
            "place": place,
            "rank": rank + 1,
            "kept": int(rank < pool.keep),
            "shard": shard.prefix.name,
            "row_in_shard": inside,
            "source": pool.names[values["source"]],
            "text": decode(pool.corpus.row(values["row"]).tolist(), tokenizer),
        }
        found.append(row)
    return found


def decode(tokens: list[int], tokenizer) -> str:
    """The text of a sequence, special tokens kept; the token ids where there is no tokenizer."""
    if tokenizer is None:
        return "token ids " + " ".join(map(str, tokens))
    shown = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return visible(shown)


def block(row: dict) -> Example:
    """A row of examples.csv as a block of a page."""
    about = (
        f"r {row['r']:.3f} = reference loss {row['reference_loss']:.3f} − teacher loss "
        f"{row['teacher_loss']:.3f} · {row['source']}, {int(row['tokens']):,} tokens · rank "
        f"{int(row['rank']):,}, row {int(row['row']):,} ({row['shard']} row "
        f"{int(row['row_in_shard']):,})"
    )
    return Example(row["place"], about, row["text"], bool(row["kept"]))
