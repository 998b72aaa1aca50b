"""Train a small byte-pair tokenizer on a text artefact, for students that are to learn quickly.

    python3 tools/train_tokenizer.py BASE_PATH --data-dir data/pile/train \\
        --save checkpoints/bpe --vocabulary 4096

Byte-level, as GPT-2's (any text can be encoded); <|endoftext|> is id 0 and also pads.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import asdict, dataclass

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.flags import base_folder, flag, parse, under
from tokenization.text import Documents
from tokenization.text_folder import text_files

PROGRAM = "tools/train_tokenizer.py"
END_OF_TEXT = "<|endoftext|>"
GET_TEXT = "run tools/get_pile.py"


@dataclass
class Settings:
    """Train a byte-pair tokenizer."""

    base_path: str = flag(".", "folder that contains data/ and checkpoints/")
    data_dir: str = flag("data/pile/train", "the text")
    save: str = flag("checkpoints/bpe", "folder of the tokenizer")
    vocabulary: int = flag(4096, "tokens, the 256 bytes and the end-of-text included")

    def __post_init__(self) -> None:
        if self.vocabulary <= 257:
            raise ValueError("--vocabulary must be above 257: the bytes and the end-of-text")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    text, folder = under(base, settings.data_dir), under(base, settings.save)
    inputs = {"text": (text, artefact.identity(text, "text", GET_TEXT))}
    content = {"vocabulary": settings.vocabulary}
    output = Output(folder, "tokenizer", PROGRAM, content, asdict(settings), inputs)
    output.make(lambda: train(text, settings.vocabulary, output))


def train(text: Path, vocabulary: int, output: Output) -> None:
    """Train it on all documents and write it in the format of transformers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = Documents(text_files(text))
    tokenizer.train_from_iterator((document["text"] for document in documents), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT
    )
    fast.save_pretrained(output.folder)
    output.finish(["tokenizer.json", "tokenizer_config.json"], {"tokens": len(fast)})
    print(f"{output.folder}: {len(fast):,} tokens")


if __name__ == "__main__":
    run(main)
