"""A small multiple-choice task made of held-out text: the right continuation among four.

    python3 eval/cloze.py BASE_PATH --data-dir processed_data/held_out/smollm2-129

Reads a corpus and writes BASE_PATH/configs/lm_harness_tasks/NAME.jsonl and NAME.yaml, a task that
scripts/eval/harness.sh finds by its name: `--tasks heldout_cloze`. The wrong continuations are
those of three other sequences, at the same place.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

import json
import random
from dataclasses import dataclass

from data_utils.atomic_files import atomic_file
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, flag, parse, under
from data_utils.names import check_name
from data_utils.tokenizer import load_tokenizer
from eval.harness_tasks import OURS
from reports.files import save

CHOICES = 4


@dataclass
class Settings:
    """Make a multiple-choice task of held-out text."""

    base_path: str = flag(".", "folder that contains processed_data/")
    data_dir: str = flag("processed_data/dclm/qwen-1025", "the held-out corpus")
    tokenizer_path: str = flag("checkpoints/qwen/1.8B", "for a corpus without its own tokenizer")
    name: str = flag("heldout_cloze", "name of the task")
    documents: int = flag(200, "the most documents of the task")
    context_words: int = flag(24, "words of the context")
    ending_words: int = flag(8, "words of each continuation")
    seed: int = flag(10, "decides which continuations are put together, and in which order")

    def __post_init__(self) -> None:
        check_name("--name", self.name)
        if min(self.documents, self.context_words, self.ending_words) < 1:
            raise ValueError("--documents, --context-words, --ending-words must be at least 1")


def main() -> None:
    settings = parse(Settings, positional="base_path")
    base = base_folder(settings.base_path)
    corpus = Corpus(under(base, settings.data_dir))
    tokenizer = load_tokenizer(corpus.tokenizer_folder or under(base, settings.tokenizer_path))
    pieces = split(corpus, tokenizer, settings)
    if len(set(endings(pieces))) < CHOICES:
        raise InputError(
            "the corpus has too few long sequences for a task",
            where=corpus.folder,
            expected=f"{CHOICES} of {settings.context_words + settings.ending_words} words",
            found=len(pieces),
            fix="give another corpus, or smaller --context-words and --ending-words",
        )
    documents = make_documents(pieces, settings.seed)
    folder = base / OURS
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{settings.name}.jsonl"
    with atomic_file(data, "w") as file:
        file.writelines(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    save(folder / f"{settings.name}.yaml", task_file(settings.name, data))
    print(f"{settings.name}: {len(documents)} documents -> {folder / settings.name}.yaml")


def split(corpus: Corpus, tokenizer, settings: Settings) -> list[tuple[str, str]]:
    """(context, continuation) of the first sequences that are long enough, in corpus order.

    Of a sequence only the text in front of its first end-of-text counts; white space is one space.
    """
    pieces = []
    for row in range(len(corpus)):
        ids = corpus.row(row).tolist()
        if corpus.eos_id in ids:
            ids = ids[: ids.index(corpus.eos_id)]
        words = tokenizer.decode(ids).split()
        end = settings.context_words + settings.ending_words
        if len(words) >= end:
            context, ending = words[: settings.context_words], words[settings.context_words : end]
            pieces.append((" ".join(context), " ".join(ending)))
        if len(pieces) == settings.documents:
            break
    return pieces


def endings(pieces: list[tuple[str, str]]) -> list[str]:
    """The continuations."""
    return [ending for _, ending in pieces]


def make_documents(pieces: list[tuple[str, str]], seed: int) -> list[dict]:
    """{context, choices, label}: the choices in random order, the label says which is right."""
    chance = random.Random(seed)
    different, documents = sorted(set(endings(pieces))), []
    for context, right in pieces:
        wrong = [ending for ending in chance.sample(different, CHOICES) if ending != right]
        choices = [right, *wrong[: CHOICES - 1]]
        chance.shuffle(choices)
        documents.append({"context": context, "choices": choices, "label": choices.index(right)})
    return documents


def task_file(name: str, data: Path) -> str:
    """The task as lm-eval reads it; JSON is YAML."""
    metrics = [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm")
    ]
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": metrics,
        "metadata": {"version": 1.0},
    }
    return json.dumps(task, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    run(main)
