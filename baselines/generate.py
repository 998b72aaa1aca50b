"""Let a teacher continue the rows of a corpus: the corpus that SeqKD trains on.

    bash scripts/seqkd/generate.sh BASE_PATH
    python3 baselines/generate.py BASE_PATH --model-path checkpoints/qwen/1.8B

Reads a corpus and a model; writes BASE_PATH/processed_data/pretrain/pile-qwen_1.8B-gen/qwen-1025.
The first PROMPT_LENGTH tokens of a row stay, the teacher samples the rest up to the row's length.
Any number of processes that are given the same command finish the job together
(data_utils/elastic.py). The sampled tokens lie in results/continuations until the corpus is
written from them.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from baselines.continued_corpus import Continued, examine
from cluster.place import die_with_launcher, launched, local_rank
from cluster.stop import Stop
from cluster.worker import run
from data_utils.artefact_writer import Output, lock
from data_utils.corpus import Corpus
from data_utils.elastic import Arrays, Compute, ElasticJob
from data_utils.errors import ArtefactError, InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.tokenizer import copy_tokenizer, load_tokenizer, vocabulary_size
from miniplm import score
from miniplm.shard_copy import copy_shards
from pretrain.flops import forward_flops, outline
from pretrain.generation import continue_prompts
from pretrain.log_probs import batches_by_length, check_ids
from pretrain.models import GET_MODEL, raised_as

PROGRAM = "baselines/generate.py"


@dataclass
class Settings(score.Settings):
    """Let a teacher continue the rows of a corpus."""

    save: str = flag(
        "processed_data/pretrain/pile-qwen_1.8B-gen/qwen-1025", "the corpus that is made"
    )
    continuations: str = flag(
        "results/continuations/pile/qwen-1025/qwen_1.8B", "folder of the sampled tokens"
    )
    shards: str = flag(
        "0:52", "shards to continue, FIRST:LAST; 100,000 steps of 512 rows read 52 of them"
    )
    block_size: int = flag(2048, "rows that are continued and published together")
    tokens_per_batch: int = flag(65_536, "tokens per batch, prompts and continuations")
    prompt_length: int = flag(768, "tokens of a row that stay")
    temperature: float = flag(1.0, "0: always the most probable token")
    top_p: float = flag(1.0, "sample from the most probable tokens that reach this mass")
    seed: int = flag(10, "of the sampling")
    shard_size: int = flag(1_000_000, "rows per shard of the corpus that is made")
    # SeqKD asks for the teacher's own text, whatever the teacher was trained on.
    allow_reference_data: bool = flag(True, "also continue rows that the model was trained on")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prompt_length < 1 or self.shard_size < 1:
            raise ValueError("--prompt-length and --shard-size must be at least 1")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError("--temperature must be at least 0, --top-p above 0 and at most 1")


@dataclass
class Amount:
    """What is to be done: tokens to sample, rows left as they are, FLOPs of the teacher."""

    tokens: int = 0
    whole_rows: int = 0
    flops: int = 0


@dataclass
class Generation:
    """The inputs, checked, with the job of the continuations, and the corpus to be made."""

    scoring: score.Scoring
    made: Output
    amount: Amount
    vocab_size: int  # ids that the tokenizer has; the teacher's head may be padded


def check(argv: list[str], world: int) -> Path:
    """Check the user's input before any process is started; returns the corpus's folder."""
    generation = prepare(parse(Settings, argv, positional="base_path"))
    begin(generation)
    generation.scoring.job.is_done()
    return generation.made.folder


def main() -> None:
    settings = parse(Settings, positional="base_path")
    if launched():
        die_with_launcher()
    score.stopped_by_signals(lambda stop: generate(settings, stop))


def prepare(settings: Settings) -> Generation:
    """Open and check corpus, model and tokenizer; raises InputError or ArtefactError."""
    scoring = score.prepare(settings)
    corpus, scores = scoring.corpus, scoring.job.output
    names = ("prompt_length", "temperature", "top_p", "seed")
    content = {**scores.content, "type": "continuations"}
    content |= {name: getattr(settings, name) for name in names}
    of_corpus = {**corpus.carried(), **content, "shard_size": settings.shard_size}
    base, more = base_folder(settings.base_path), (asdict(settings), scores.inputs)
    store = Output(under(base, settings.continuations), "continuations", PROGRAM, content, *more)
    made = Output(under(base, settings.save), "corpus", PROGRAM, of_corpus, *more)
    first_row, quiet = scoring.job.first_row, local_rank() != 0
    job = ElasticJob(store, len(corpus), settings.block_size, first_row, quiet)
    amount = count(corpus, scoring.model_folder, settings.prompt_length)
    vocab_size = vocabulary_size(load_tokenizer(scoring.model_folder))
    return Generation(dataclasses.replace(scoring, job=job), made, amount, vocab_size)


def count(corpus: Corpus, model_folder: Path, prompt_length: int) -> Amount:
    """The amount of work; InputError if no row is longer than the prompt, or without a cache."""
    with raised_as(InputError, "the model cannot be read", GET_MODEL, model_folder):
        model, amount = outline(model_folder), Amount()
    if not getattr(model.config, "num_attention_heads", 0):
        raise InputError(
            f"{type(model).__name__} has no key-value cache, which sampling needs",
            where=model_folder,
            fix="use a teacher with attention in all layers (MODEL_PATH)",
        )
    for shard in corpus.shards:
        lengths = shard.read(0, len(shard))[0].astype(np.int64)
        longer = lengths[lengths > prompt_length]
        amount.whole_rows += len(lengths) - len(longer)
        amount.tokens += int((longer - prompt_length).sum())
        inputs = longer - 1  # the last token of a row is never an input
        amount.flops += int((inputs * forward_flops(model, inputs)).sum())
    if not amount.tokens:
        raise InputError(
            "no row is longer than the prompt: there is nothing to generate",
            where=corpus.folder,
            expected=f"rows of more than {prompt_length} tokens",
            found=corpus.announced,
            fix="choose a smaller PROMPT_LENGTH",
        )
    return amount


def begin(generation: Generation) -> bool:
    """Begin the corpus, or find that it is done: another command for its folder is refused."""
    with lock(generation.made.folder, wait=True):
        return generation.made.begin().done


def generate(settings: Settings, stop: Stop) -> None:
    """Do the missing blocks together with all other workers, then write the corpus."""
    generation = prepare(settings)
    job = generation.scoring.job
    if begin(generation):
        print(f"{generation.made.folder} is there already")
        return
    if local_rank() == 0 and not job.is_done():
        announce(generation)
    job.run(
        functools.partial(load, generation, settings, stop),
        examine,
        flops=generation.amount.flops,
    )
    write(generation, settings.shard_size)


def announce(generation: Generation) -> None:
    """Say what it will take, before any work."""
    amount, corpus = generation.amount, generation.scoring.corpus
    print(
        f"{len(corpus):,} rows: {len(corpus) - amount.whole_rows:,} to be continued by "
        f"{amount.tokens:,} tokens, {amount.whole_rows:,} no longer than the prompt stay as they "
        f"are; {amount.flops:.3g} FLOPs of the teacher",
        flush=True,
    )


def load(generation: Generation, settings: Settings, stop: Stop) -> tuple[Compute, str]:
    """(the function that continues a block's rows, device and precision)."""
    model, made_on = score.load_model_of(generation.scoring, settings)
    return functools.partial(continue_rows, model, generation, settings, stop), made_on


def continue_rows(
    model: torch.nn.Module,
    generation: Generation,
    settings: Settings,
    stop: Stop,
    rows: np.ndarray,
    advance: Callable[[int], object],
) -> Arrays:
    """count int32 [len(rows)], sampled tokens of each row, and tokens int32, row after row."""
    corpus, first_row = generation.scoring.corpus, generation.scoring.job.first_row
    device, prompt_length = next(model.parameters()).device, settings.prompt_length
    lengths = corpus.lengths(rows)
    counts = np.maximum(lengths - prompt_length, 0).astype(np.int32)
    parts = [np.empty(0, np.int32)] * len(rows)
    longer = np.flatnonzero(counts)
    advance(len(rows) - len(longer))
    batches = batches_by_length(lengths[longer], rows[longer], settings.tokens_per_batch)
    with stop.deferred():
        for batch in batches:
            at = longer[batch]
            prompts = np.stack([row[:prompt_length] for row in corpus.sequences(rows[at])])
            check_ids(prompts, generation.vocab_size, corpus, rows[at])
            tokens = continue_prompts(
                model,
                torch.from_numpy(prompts.astype(np.int64)).to(device),
                int(counts[at].max()),
                torch.from_numpy(first_row + rows[at]).to(device),
                settings.seed,
                settings.temperature,
                settings.top_p,
                generation.vocab_size,
                before_token=stop.check,
            )
            new = tokens[:, prompt_length:].int().cpu().numpy()
            refuse_non_finite(generation, rows[at], new)
            for place, line in zip(at, new, strict=True):
                parts[place] = line[: counts[place]]
            advance(len(at))
    return {"count": counts, "tokens": np.concatenate(parts)}


def refuse_non_finite(generation: Generation, rows: np.ndarray, new: np.ndarray) -> None:
    """ArtefactError that names the first of the rows that met logits that are not finite."""
    bad = np.flatnonzero(new[:, 0] < 0)
    if len(bad):
        scoring = generation.scoring
        raise ArtefactError(
            f"the model's logits are not finite for {scoring.corpus.describe(int(rows[bad[0]]))}",
            where=scoring.model_folder,
            fix="use PRECISION=bf16 or fp32, or another model; finished blocks are kept",
        )


def write(generation: Generation, shard_size: int) -> None:
    """Write the corpus from the continuations, if no other worker has."""
    made, job, corpus = generation.made, generation.scoring.job, generation.scoring.corpus
    with lock(made.folder, wait=True):
        if made.begin().done:
            return
        continued = Continued(corpus, job.files)
        rows = job.first_row + np.arange(len(corpus))
        files, shards, tokens = copy_shards(continued, rows, made.folder, shard_size)
        if corpus.tokenizer_folder is not None:
            files += copy_tokenizer(corpus.tokenizer_folder, made.folder / "tokenizer")
        counts = {"shards": shards, "sequences": len(rows), "tokens": tokens}
        amount = generation.amount
        counts |= {"domains": corpus.domains, "generated_tokens": amount.tokens}
        made.finish(files, counts | {"whole_rows": amount.whole_rows, "flops": amount.flops})
    print(
        f"{made.folder}: {len(rows):,} rows of {tokens:,} tokens, {amount.tokens / tokens:.1%} of "
        f"them sampled by the teacher; {amount.whole_rows:,} rows stayed as they were"
    )


if __name__ == "__main__":
    run(main)
