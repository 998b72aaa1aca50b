"""Tokenizers: loading a folder, comparing two, and the end-of-sentence tables of the chunker."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from data_utils.artefact import canonical_hash
from data_utils.atomic_files import read_json
from data_utils.errors import InputError

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
LARGEST = 1 << 24  # no model has that many embeddings; tables over ids would fill the memory
# These override tokenizer_config.json, which would change what tokenizer.json says.
AS_IN_THE_FILE = {
    "fix_mistral_regex": False,
    "split_special_tokens": False,
    "clean_up_tokenization_spaces": False,
    "model_max_length": int(1e30),  # as if not given: it only warns about longer texts
}
PROBE = (
    "The quick brown fox; don't! 3.14159 \t e = mc^2\n\n\nDéjà vu — naïve café. 東京 — "
    "привет, мир? if (a[0] < b) { return f'{x!r}'; }\r\n    # tabs\tand   spaces 😀 <|endoftext|> x"
    + " y"
    * 9
)


OTHER_FOLDER = "give a folder with tokenizer.json (TOKENIZER_PATH)"


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has the files of a tokenizer."""
    return any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))


def load_tokenizer(folder: Path, fix: str = OTHER_FOLDER):
    """The Hugging Face tokenizer of a folder, from its files alone, with an end-of-text token.

    tokenizer.json's vocabulary and rules are used as they are, its settings for a call are not
    (text_to_ids_alone). AutoTokenizer would look at a config.json beside it and replace the file's
    pre-tokenizer by the architecture's own (transformers 5, Qwen2). Raises an InputError with this
    fix for a folder without a usable one.
    """
    from transformers import PreTrainedTokenizerFast

    if not has_tokenizer(folder):
        raise InputError("there is no tokenizer", where=folder, fix=fix)
    try:
        loader = PreTrainedTokenizerFast
        if not (folder / "tokenizer.json").exists():
            from transformers import AutoTokenizer as loader  # imports torch: seconds
        tokenizer = loader.from_pretrained(folder, local_files_only=True, **AS_IN_THE_FILE)
    except (ValueError, OSError, KeyError, TypeError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"the tokenizer cannot be read ({reason})", where=folder, fix=fix
        ) from error
    if not tokenizer.is_fast:
        raise InputError("the tokenizer exists only as Python code", where=folder, fix=fix)
    if tokenizer.eos_token_id is None:
        raise InputError(
            "the tokenizer has no end-of-text token",
            where=folder,
            fix="name one as eos_token in its tokenizer_config.json",
        )
    text_to_ids_alone(tokenizer)
    config, needed = folder / "config.json", check_ids(tokenizer, folder)
    if config.exists():
        size = read_json(config, fix).get("vocab_size", needed)
        if needed > size:
            raise InputError(
                "the tokenizer has larger ids than the model beside it",
                where=config,
                expected=f"vocab_size at least {needed}",
                found=size,
                fix="put the tokenizer and the config.json of the same model there",
            )
    return tokenizer


def text_to_ids_alone(tokenizer) -> None:
    """Switch off what makes the ids of a text depend on more than the text and the vocabulary.

    Files are saved with what the last call set: truncation, padding, random merges. Hugging Face's
    own call resets some of it; the backend, which we encode with, keeps it, and each process reads
    it from the file again. add_special_tokens=False switches off a post-processor's tokens.
    """
    tokenizer.split_special_tokens = False
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = False
    if hasattr(backend.model, "dropout"):
        backend.model.dropout = None


def vocabulary_size(tokenizer) -> int:
    """The largest id plus one: what tables, token types and models need.

    Vocabularies have gaps: the number of entries, len(tokenizer), can be smaller.
    """
    return max(tokenizer.get_vocab().values()) + 1


def check_ids(tokenizer, folder: Path) -> int:
    """vocabulary_size; an InputError for ids not as in the file, of two entries, or absurdly large.

    The loader numbers added tokens by the count of entries, which can be another entry's id.
    """
    where, vocabulary = folder / "tokenizer.json", tokenizer.get_vocab()
    fix = "get the tokenizer again, or add its added tokens to the model's vocabulary there too"

    def refuse(what: str, expected: object, found: object) -> None:
        raise InputError(what, where=where, expected=expected, found=found, fix=fix)

    largest = max(vocabulary.values())
    if largest >= LARGEST:
        refuse("an id is too large", f"ids below {LARGEST}", largest)
    listed = orjson.loads(where.read_bytes()).get("added_tokens") if where.exists() else []
    for token in listed or []:
        found = vocabulary.get(token["content"])
        if found != token["id"]:
            what = f"the added token {token['content']!a} cannot have the id that the file gives it"
            refuse(what, token["id"], found)
    if len(set(vocabulary.values())) == len(vocabulary):
        return largest + 1
    added = tokenizer.get_added_vocab()
    others = {number: token for token, number in vocabulary.items() if token not in added}
    for token, number in added.items():
        if number in others:
            what = f"the added token {token!a} has the id of another entry"
            refuse(what, "an id of its own", f"{number}, that of {others[number]!a}")
    return largest + 1


def bos_id(tokenizer, folder: Path, add_bos: bool) -> int | None:
    """Id of the beginning-of-sequence token, None without ADD_BOS; an InputError if it has none."""
    if add_bos and tokenizer.bos_token_id is None:
        raise InputError(
            "ADD_BOS is on and the tokenizer has no beginning-of-sequence token",
            where=folder,
            fix="leave ADD_BOS off for this tokenizer",
        )
    return tokenizer.bos_token_id if add_bos else None


def tokenizer_fingerprint(tokenizer) -> str:
    """Equal for tokenizers with equal token-to-id maps (added tokens too) that encode equally."""
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    return canonical_hash([sorted(tokenizer.get_vocab().items()), ids, tokenizer.eos_token_id])


def copy_tokenizer(source: Path, target: Path) -> list[str]:
    """Copy a tokenizer's files into a folder; returns their names relative to its parent."""
    target.mkdir(parents=True, exist_ok=True)
    names = [name for name in FILES if (source / name).is_file()]
    for name in names:
        shutil.copyfile(source / name, target / name)
    return [f"{target.name}/{name}" for name in names]


@dataclass(frozen=True)
class SentenceEnds:
    """Tables over token ids, [vocabulary_size] bool: what the chunker asks of a token's text."""

    ends: np.ndarray  # end-of-sentence tokens, end-of-text not included
    newline: np.ndarray  # the text has a newline
    space: np.ndarray  # the text has a space


def sentence_ends(tokenizer) -> SentenceEnds:
    """The tables of a byte-level tokenizer (the text of two tokens has a space if one's has).

    An end-of-sentence token has one of . ! ? ; or newline, and for none of the pairs [ ] ( ) < >
    the first without the second; nor a backslash without an opening brace: the original's slip
    for { }, kept because the published corpus was cut with it.
    """
    ids = [[i] for i in range(vocabulary_size(tokenizer))]  # ids in gaps have no text
    texts = tokenizer.backend_tokenizer.decode_batch(ids, skip_special_tokens=False)
    ends = [
        any(mark in text for mark in ".!?;\n")
        and not any(a in text and b not in text for a, b in ("[]", "()", "<>", "\\{"))
        for text in texts
    ]
    return SentenceEnds(
        np.array(ends),
        np.array(["\n" in text for text in texts]),
        np.array([" " in text for text in texts]),
    )
