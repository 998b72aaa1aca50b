"""Tokenise text into a corpus of sequences, a million a shard.

    python3 tools/process_data/tokenize_pile.py BASE_PATH [--tokenizer-path checkpoints/qwen/1.8B]

Reads BASE_PATH/data/pile/train/*.jsonl[.zst], lines {"text": ..., "meta": {"pile_set_name": ...}};
writes the corpus BASE_PATH/processed_data/pretrain/pile/qwen-1025.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from data_utils.start import use_project_python

    use_project_python()

from dataclasses import asdict, dataclass, field

import numpy as np

from data_utils import artefact
from data_utils.chunker import Chunker
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.shards import token_type, write_shard
from data_utils.text import Text, batches
from data_utils.tokenizer import (
    copy_tokenizer,
    load_tokenizer,
    sentence_ends,
    tokenizer_fingerprint,
)

SHUFFLE_SEED = 233  # the original's; one generator runs through all shards
MAX_DOMAINS = 255


@dataclass
class Settings:
    """Tokenise text into a corpus."""

    base_path: str = flag(".", "where data/, checkpoints/ and processed_data/ lie")
    data_dir: str = flag("data/pile/train", "folder with the text")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "folder with the tokenizer")
    save: str = flag("processed_data/pretrain/pile/qwen-1025", "folder of the corpus")
    split: str = flag("data", "prefix of the shard files: data for training, test for evaluation")
    max_length: int = flag(1025, "tokens of a sequence, label included")
    add_bos: bool = flag(False, "put the tokenizer's beginning-of-sequence token before each")
    shard_size: int = flag(1_000_000, "sequences a shard")

    def __post_init__(self) -> None:
        if self.max_length < 2 or self.shard_size < 1:
            raise ValueError("--max-length must be at least 2 and --shard-size at least 1")


@dataclass
class Table:
    """What was read and written, a row a source."""

    rows: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, source: str, **amounts: int) -> None:
        row = self.rows.setdefault(
            source, dict(documents=0, empty=0, bytes=0, tokens=0, sequences=0, tokens_left=0, cut=0)
        )
        for name, amount in amounts.items():
            row[name] += amount

    def number(self, source: str) -> int:
        """The domain number of a source, in order of appearance."""
        number = list(self.rows).index(source)
        if number >= MAX_DOMAINS:
            raise InputError(
                "too many sources",
                expected=f"at most {MAX_DOMAINS}",
                found=f"another one, {source!r}",
                fix='merge some under one "pile_set_name"',
            )
        return number


class ShardWriter:
    """Collects sequences and writes every full shard, shuffled inside."""

    def __init__(self, folder: Path, split: str, size: int, dtype: np.dtype) -> None:
        self.folder, self.split, self.size, self.dtype = folder, split, size, dtype
        self.random = np.random.RandomState(SHUFFLE_SEED)
        self.sequences: list[np.ndarray] = []
        self.domains: list[int] = []
        self.files: list[str] = []
        self.shards = self.rows = self.tokens = 0

    def add(self, sequence: np.ndarray, domain: int) -> None:
        self.sequences.append(sequence.astype(self.dtype))
        self.domains.append(domain)
        if len(self.sequences) == self.size:
            self.flush()

    def flush(self) -> None:
        """Write what is collected as the next shard."""
        if not self.sequences:
            return
        order = self.random.permutation(len(self.sequences))
        prefix = self.folder / f"{self.split}_{self.shards}"
        lengths = np.array([len(self.sequences[i]) for i in order])
        write_shard(prefix, lengths, (self.sequences[i] for i in order), self.dtype)
        domain_file = self.folder / f"domain_{self.shards}.npy"
        with artefact.atomic_file(domain_file) as file:
            np.save(file, np.array(self.domains, np.uint8)[order])
        self.files += [f"{prefix.name}.bin", f"{prefix.name}.idx", domain_file.name]
        self.shards += 1
        self.rows += len(lengths)
        self.tokens += int(lengths.sum())
        self.sequences, self.domains = [], []


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    tokenizer_folder = under(base, settings.tokenizer_path)
    tokenizer = load_tokenizer(tokenizer_folder)
    if settings.add_bos and tokenizer.bos_token_id is None:
        raise InputError(
            "ADD_BOS is on and the tokenizer has no beginning-of-sequence token",
            where=tokenizer_folder,
            fix="leave ADD_BOS off for this tokenizer",
        )
    text = Text(under(base, settings.data_dir))
    output = artefact.Output(
        folder=under(base, settings.save),
        kind="corpus",
        program="tools/process_data/tokenize_pile.py",
        content={
            "tokenizer": tokenizer_fingerprint(tokenizer),
            "eos_id": tokenizer.eos_token_id,
            "max_length": settings.max_length,
            "add_bos": settings.add_bos,
            "shard_size": settings.shard_size,
            "split": settings.split,
        },
        settings=asdict(settings),
        inputs={"text": (text.folder, text.identity)},
    )
    with artefact.lock(output.folder):
        if output.begin().done:
            print(f"{output.folder} is there already")
        else:
            tokenize(text, tokenizer, tokenizer_folder, output)
    print_table(artefact.read_manifest(output.folder))


def tokenize(text: Text, tokenizer, tokenizer_folder: Path, output: artefact.Output) -> None:
    """Read all text, write all shards and the manifest."""
    content = output.content
    chunker = Chunker(
        sentence_ends(tokenizer),
        tokenizer.eos_token_id,
        content["max_length"],
        tokenizer.bos_token_id if content["add_bos"] else None,
    )
    dtype = token_type(len(tokenizer))
    writer = ShardWriter(output.folder, content["split"], content["shard_size"], dtype)
    table = Table()
    for documents in batches(text):
        encoded = tokenizer([d.text for d in documents], add_special_tokens=False)["input_ids"]
        for document, ids in zip(documents, encoded, strict=True):
            table.add(
                document.source,
                documents=1,
                empty=int(not document.text),
                bytes=len(document.text.encode()),
                tokens=len(ids) + 1,
            )
            domain = table.number(document.source)
            for sequence in chunker.add(document.source, np.array(ids, np.int64)):
                writer.add(sequence, domain)
                table.add(document.source, sequences=1)
    writer.flush()
    if writer.rows == 0:
        raise InputError(
            "the text is too short for a single sequence", where=text.folder, fix="bring more text"
        )
    for source, buffer in chunker.buffers.items():
        table.add(source, tokens_left=len(buffer), cut=chunker.documents_cut.get(source, 0))
    files = writer.files + copy_tokenizer(tokenizer_folder, output.folder / "tokenizer")
    counts = {
        "shards": writer.shards,
        "sequences": writer.rows,
        "tokens": writer.tokens,
        "domains": list(table.rows),
    }
    output.finish(files, counts, report={"sources": table.rows})


def print_table(manifest: dict) -> None:
    """Show what the corpus holds, a line a source."""
    names = ["documents", "empty", "bytes", "tokens", "sequences", "tokens_left", "cut"]
    print(f"{'source':24}" + "".join(f"{name:>14}" for name in names))
    for source, row in manifest["report"]["sources"].items():
        print(f"{source[:23]:24}" + "".join(f"{row[name]:14,}" for name in names))
    counts = manifest["counts"]
    print(
        f"{counts['sequences']:,} sequences, {counts['tokens']:,} tokens, {counts['shards']} "
        "shards. tokens_left: dropped at the end, too few for a sequence; cut: documents "
        "cut at 2,000 sequences"
    )


if __name__ == "__main__":
    from data_utils.start import run

    run(main)
