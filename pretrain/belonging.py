"""Whether a model belongs to a corpus: the checks of all stages that use the two together."""

from pathlib import Path

from cluster.place import local_rank
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.tokenizer import (
    has_tokenizer,
    load_tokenizer,
    tokenizer_fingerprint,
    vocabulary_size,
)
from pretrain.models import check_positions, read_config


def require_belonging(corpus: Corpus, model_folder: Path) -> None:
    """InputError for a model of another tokenizer, or with fewer positions than the corpus's rows.

    If the corpus does not record its tokenizer, the model's is assumed, with a note.
    """
    check_configuration(corpus, model_folder / "config.json")
    copy = f"copy the files of the model's own tokenizer into {model_folder}"
    if not has_tokenizer(model_folder):
        what = "the model has no tokenizer to compare with the corpus's"
        raise InputError(what, where=model_folder, fix=copy)
    known = corpus.carried().get("tokenizer")
    if known is None:
        note(
            f"{corpus.folder} does not record its tokenizer: assuming the model's "
            "(tools/verify.py --adopt records it)"
        )
        return
    found = tokenizer_fingerprint(load_tokenizer(model_folder, copy))
    if found != known:
        raise InputError(
            "the model's tokenizer is not the corpus's",
            where=model_folder,
            expected=f"tokenizer {known[:12]}",
            found=found[:12],
            fix=f"tokenize with TOKENIZER_PATH={model_folder}, or choose the corpus's own model",
        )


def require_room(corpus: Corpus, config_file: Path) -> None:
    """InputError for a configuration with fewer positions or ids than the corpus has."""
    check_configuration(corpus, config_file)
    size = read_config(config_file).get("vocab_size")
    if size is None or corpus.tokenizer_folder is None:
        return
    needed = vocabulary_size(load_tokenizer(corpus.tokenizer_folder))
    if size < needed:
        raise InputError(
            "the model has fewer ids than the corpus's tokenizer",
            where=config_file,
            expected=f"vocab_size of at least {needed}",
            found=size,
            fix="correct it there, or choose another MODEL_CONFIG",
        )


def check_configuration(corpus: Corpus, config_file: Path) -> None:
    """InputError for fewer positions than the corpus's rows; a note for another end-of-text."""
    check_positions(config_file, corpus.max_length)
    known, named = corpus.carried().get("eos_id"), read_config(config_file).get("eos_token_id")
    ids = named if isinstance(named, list) else [named]
    if known is not None and named is not None and known not in ids:
        note(
            f"the corpus's end-of-text is {known}, the model's is {named} ({config_file}): "
            "the corpus's is used"
        )


def require_same_tokens(corpus: Corpus, held_out: Corpus, config_file: Path) -> None:
    """InputError for a held-out corpus of another tokenizer, or of rows too long for the model."""
    check_positions(config_file, held_out.max_length)
    mine, theirs = corpus.carried(), held_out.carried()
    for name in ("tokenizer", "eos_id"):
        if name not in mine or name not in theirs:
            note(f"{held_out.folder} is assumed to have the corpus's {name}")
        elif mine[name] != theirs[name]:
            raise InputError(
                f"the held-out corpus has another {name} than the corpus",
                where=held_out.folder,
                expected=str(mine[name])[:12],
                found=str(theirs[name])[:12],
                fix="tokenize it with the corpus's tokenizer, or leave VALID_DATA empty",
            )


def end_of_text(corpus: Corpus, fallback: Path) -> int:
    """The id of the corpus's end-of-text, else, with a note, that of the tokenizer in fallback."""
    corpus.fallback_tokenizer = fallback
    found = corpus.eos_id
    if "eos_id" not in corpus.carried() and corpus.tokenizer_folder is None:
        note(
            f"{corpus.folder} does not record its end-of-text: assuming {found}, that of "
            f"{fallback} (TOKENIZER_PATH)"
        )
    return found


def note(text: str) -> None:
    """Say what is assumed, in one of a machine's processes."""
    if local_rank() == 0:
        print(f"NOTE {text}", flush=True)
