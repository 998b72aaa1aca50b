"""Whether a model belongs to a corpus: asked by all that joins the two, in one place."""

from pathlib import Path

from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.tokenizer import has_tokenizer, load_tokenizer, tokenizer_fingerprint
from pretrain.models import check_positions


def require_belonging(corpus: Corpus, model_folder: Path) -> None:
    """Refuse a model of another tokenizer, or with fewer positions than the corpus's rows.

    Where the corpus does not record its tokenizer, the model's is assumed, and that is said.
    """
    check_positions(model_folder / "config.json", corpus.max_length)
    known = corpus.carried().get("tokenizer")
    if not has_tokenizer(model_folder):
        raise InputError(
            "the model has no tokenizer to compare with the corpus's",
            where=model_folder,
            fix=f"copy the files of the model's own tokenizer into {model_folder} "
            f"(of the corpus's, if it is that: {corpus.tokenizer_folder or 'tokenizer.json'})",
        )
    if known is None:
        print(
            f"NOTE {corpus.folder} does not record its tokenizer: the model's is assumed "
            "(tools/verify.py --adopt records it)",
            flush=True,
        )
        return
    found = tokenizer_fingerprint(load_tokenizer(model_folder))
    if found != known:
        raise InputError(
            "the model's tokenizer is not the corpus's",
            where=model_folder,
            expected=f"tokenizer {known[:12]}",
            found=found[:12],
            fix=f"tokenise with TOKENIZER_PATH={model_folder}, or choose the corpus's own model",
        )


def end_of_text(corpus: Corpus, fallback: Path) -> int:
    """The id of the corpus's end-of-text; fallback: a tokenizer's folder, which is then named."""
    found = corpus.end_of_text(fallback)
    if "eos_id" not in corpus.carried() and corpus.tokenizer_folder is None:
        print(
            f"NOTE {corpus.folder} does not record its end-of-text: {found} is assumed, that of "
            f"{fallback} (TOKENIZER_PATH)",
            flush=True,
        )
    return found
