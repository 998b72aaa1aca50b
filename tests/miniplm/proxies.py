"""A corpus whose r is a simple function of its rows, scored in part, and a proxy trained on it."""

from pathlib import Path

import numpy as np

from data_utils.corpus import Corpus
from miniplm import difference
from pretrain.flops import corpus_flops
from tests import make, programs

VOCAB, EOS, LONGEST = 600, 0, 25
SHARD, SHARDS = 48, 6
LABELLED, TRAINED = (1, 5), (1, 4)  # shards; the last labelled one is held out
MODEL = {**make.qwen_config(VOCAB), "tie_word_embeddings": False}
NAMES = ["--scores", "scores", "--teacher-name", "T", "--ref-name", "R"]
TRAIN = {
    "objective": "score_regression",
    "labels": "scores/diff-T-R",
    "data_dir": "part",
    "model_path": "reference",
    "global_batch": 8,
    "micro_batch": 4,
    "lr": 5e-3,
    "lr_min": 5e-4,
    "warmup_steps": 5,
    "total_steps": 90,
    "save_every": 1000,
    "log_every": 1,
}


def rows_with_r() -> tuple[list[np.ndarray], np.ndarray]:
    """(rows, r): the share of a row's counted inputs below 50, NaN where none counts."""
    generator, rows = np.random.default_rng(0), []
    for _ in range(SHARD * SHARDS):
        low = generator.random(generator.integers(5, LONGEST + 1)) < generator.random()
        row = generator.integers(2, 50, len(low)) + 50 * ~low
        row[generator.random(len(row)) < 0.03] = EOS
        rows.append(row)
    rows[60] = rows[200] = np.array([EOS, EOS, EOS])
    shares = [(row[:-1][row[:-1] != EOS] < 50) for row in rows]
    return rows, np.array([share.mean() if len(share) else np.nan for share in shares])


def make_base(base: Path) -> Path:
    """BASE_PATH with corpus, both models, r of the labelled shards, and the part to train on."""
    tokenizer = make.train_tokenizer(base / "tokenizer", make.documents(50), VOCAB)
    rows, r = rows_with_r()
    save = {"max_length": LONGEST, "shard_size": SHARD}
    make.save_corpus(base / "corpus", rows, tokenizer, **save)
    make.save_corpus(base / "other", rows[::-1], tokenizer, **save)
    make.save_model(base / "teacher", make.qwen_config(VOCAB, 64), 1, tokenizer)
    make.save_model(base / "reference", MODEL, 2, tokenizer)
    save_labels(base, "T", "R", r)
    split(base, "part", TRAINED)
    return base


def save_labels(base: Path, teacher: str, ref: str, r: np.ndarray) -> None:
    """Stores of both models over the labelled shards, whose difference is r [corpus rows]."""
    first, last = (SHARD * shard for shard in LABELLED)
    r, corpus = r[first:last], base / "corpus"
    counts = np.where(np.isnan(r), 0, 8)
    part = Corpus(corpus, shards=LABELLED)
    for name, model, means in ((teacher, "teacher", np.nan_to_num(r)), (ref, "reference", 0 * r)):
        sums, content = np.nan_to_num(means) * counts, {"shards": list(LABELLED)}
        flops = corpus_flops(base / model, part)
        folder = base / "scores" / name
        make.save_scores(folder, corpus, f"../{model}", sums, counts, first, flops=flops, **content)
    words = [str(base), "--scores", "scores", "--teacher-name", teacher, "--ref-name", ref]
    difference.compute(difference.parse(difference.Settings, words, "base_path"))


def split(base: Path, save: str, shards: tuple[int, int], corpus: str = "corpus") -> None:
    """Some of the corpus's shards as a corpus, by the program for it."""
    words = ["--data-dir", corpus, "--save", save, "--shards", "{}:{}".format(*shards)]
    run = programs.call(base, "tools.split_ref_data", base, *words)
    assert run.code == 0, run.errors


def train(base: Path, save: str, processes: int = 1, **changes: object) -> programs.Program:
    """Train a proxy."""
    words = ["pretrain.train"]
    if processes > 1:
        words = ["cluster.launch", "--nproc", processes, "pretrain/train.py"]
    return programs.call(base, *words, base, *programs.flags({**TRAIN, "save": save, **changes}))


def predict(base: Path, save: str, **changes: object) -> programs.Program:
    """Score the corpus with a proxy."""
    settings = {"model_path": "proxy", "data_dir": "corpus", "save": save, "block_size": 40}
    settings |= {"tokens_per_batch": 300, **changes}
    return programs.call(base, "miniplm.proxy", base, *programs.flags(settings))
