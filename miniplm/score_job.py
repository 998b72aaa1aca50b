"""What is to be scored: the settings of a scoring job, its inputs, checked, and its blocks."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.blocks import Blocks
from data_utils.corpus import Corpus, shard_range
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, under
from miniplm.scores import FILL, SUFFIX, check_block, job_of
from pretrain.belonging import end_of_text, require_belonging
from pretrain.models import GET_MODEL, Attention, Precision, resolve_precision


@dataclass
class Settings:
    """Score a corpus with a model."""

    base_path: str = flag(".", "where processed_data/, checkpoints/ and results/ lie")
    model_path: str = flag("checkpoints/qwen/1.8B", "the model")
    data_dir: str = flag("processed_data/pretrain/pile/qwen-1025", "the corpus")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    save: str = flag("results/scores/pile/qwen-1025/qwen_1.8B", "folder of the scores")
    shards: str = flag("0:200", "shards to score, FIRST:LAST; what is there of them")
    block_size: int = flag(8192, "sequences that are scored and published together")
    tokens_per_batch: int = flag(16_384, "padded tokens the model sees at once")
    precision: Precision = flag("auto", "auto: fp16 on a GPU, fp32 on a CPU")
    attention: Attention = flag("sdpa", "attention of the model")
    compile: bool = flag(False, "torch.compile the model's trunk: pays on a GPU")
    allow_reference_data: bool = flag(False, "score sequences that the reference was trained on")

    def __post_init__(self) -> None:
        if self.block_size < 1 or self.tokens_per_batch < 1:
            raise ValueError("--block-size and --tokens-per-batch must be at least 1")


@dataclass
class Job:
    """The inputs, checked, and the output."""

    corpus: Corpus
    model_folder: Path
    eos_id: int
    output: Output
    blocks: Blocks
    block_size: int
    first_row: int  # of the scored shards in the corpus
    seen_in_training: bool  # the model was trained on some of the rows

    @cached_property
    def key(self) -> str:
        """What ties a block to this job."""
        return job_of(self.output.content, self.output.entries())

    def rows(self, block: int) -> np.ndarray:
        """The rows of a block, counted from the first scored one."""
        return np.arange(
            block * self.block_size, min((block + 1) * self.block_size, len(self.corpus))
        )

    def check_present(self) -> None:
        """Refuse published blocks that are not this job's, by their headers."""
        missing = set(self.blocks.missing())
        for block in range(self.blocks.count):
            if block not in missing:
                check_block(self.blocks.path(block), *self.place(block))

    def place(self, block: int) -> tuple[str, int, int]:
        """(key, first row in the corpus, number of rows) of a block."""
        rows = self.rows(block)
        return self.key, self.first_row + int(rows[0]), len(rows)


def prepare(settings: Settings) -> Job:
    """Open and check corpus, model and tokenizer."""
    base = base_folder(settings.base_path)
    corpus, first_row = open_corpus(under(base, settings.data_dir), settings.shards)
    model_folder = under(base, settings.model_path)
    identity = artefact.identity(model_folder, "model", GET_MODEL)
    seen = seen_shards(corpus, model_folder)
    if seen and not settings.allow_reference_data:
        raise InputError(
            "the model was trained on some of the sequences to be scored",
            where=corpus.folder,
            expected=f"shards other than {seen}",
            found=f"{corpus.first_shard}:{corpus.last_shard}",
            fix="choose SCORE_SHARDS outside REF_SHARDS, or add --allow-reference-data true",
        )
    require_belonging(corpus, model_folder)
    resolve_precision(settings.precision)
    output = Output(
        under(base, settings.save),
        "scores",
        "miniplm/score.py",
        {
            "type": "log-probabilities",
            "shards": [corpus.first_shard, corpus.last_shard],
            "block_size": settings.block_size,
            "tokens_per_batch": settings.tokens_per_batch,
            "precision": settings.precision,
        },
        asdict(settings),
        {"corpus": (corpus.folder, corpus.identity), "model": (model_folder, identity)},
    )
    manifest = artefact.read_manifest(output.folder)
    if manifest is not None:
        fix = FILL.format(f" (if it is there) and {artefact.MANIFEST}")
        artefact.check_files(manifest, fix, contents=False)
        output.begin()
    blocks = Blocks(output.folder, -(-len(corpus) // settings.block_size), SUFFIX)
    eos_id = end_of_text(corpus, under(base, settings.tokenizer_path))
    place = (settings.block_size, first_row)
    return Job(corpus, model_folder, eos_id, output, blocks, *place, bool(seen))


def open_corpus(folder: Path, shards: str) -> tuple[Corpus, int]:
    """(the shards FIRST:LAST of a corpus, the first one's first row in all of it)."""
    whole = Corpus(folder)
    first, last = shard_range(shards)
    if first >= whole.all_shards:
        raise InputError(
            f"SCORE_SHARDS={shards}: the corpus has {whole.all_shards} shards",
            where=folder,
            fix="choose SCORE_SHARDS below that, or tokenise with a smaller SHARD_SIZE",
        )
    corpus = Corpus(folder, shards=(first, last))
    return corpus, int(sum(len(shard) for shard in whole.shards[:first]))


def seen_shards(corpus: Corpus, model_folder: Path) -> str:
    """The shards FIRST:LAST that the model was trained on, "" if none of the corpus's are."""
    manifest = artefact.read_manifest(model_folder)
    seen = manifest.trained_on(corpus.identity["fingerprint"]) if manifest else None
    if seen is None or seen[0] >= corpus.last_shard or corpus.first_shard >= seen[1]:
        return ""
    return f"{seen[0]}:{min(seen[1], corpus.all_shards)}"
