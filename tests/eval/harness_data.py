"""Small data sets in the formats of the nine tasks, as the hub's repositories have them."""

import csv
import json
import random
from pathlib import Path

from tests import make

DOCUMENTS = 7  # per task: divided by no number of ranks
STORY_CLOZE_FILE = "cloze_test_val__winter2018-cloze_test_ALL_val - 1 - 1.csv"


class Words:
    """Pieces of real text of various lengths."""

    def __init__(self) -> None:
        self.random = random.Random(5)
        self.words = " ".join(make.documents(40)).replace("_", " ").split()

    def __call__(self, least: int, most: int) -> str:
        start = self.random.randrange(len(self.words) - most)
        return " ".join(self.words[start : start + self.random.randint(least, most)])

    def choice(self, count: int) -> int:
        return self.random.randrange(count)


def question(words: Words, number: int) -> dict:
    """A document of ARC and OpenBookQA; ARC has questions of other numbers of choices, too."""
    labels = "ABCD" if number % 3 else "12345"
    return {
        "id": str(number),
        "question": words(5, 20),
        "question_stem": words(5, 20),
        "choices": {"text": [words(1, 6) for _ in labels], "label": list(labels)},
        "answerKey": labels[words.choice(len(labels))],
    }


def hellaswag(words: Words, number: int) -> dict:
    return {
        "ind": number,
        "activity_label": words(1, 3),
        "ctx_a": words(8, 20),
        "ctx_b": words(1, 4) if number % 2 else "",
        "endings": [f"{words(3, 12)} [title] {words(1, 5)}" for _ in range(4)],
        "label": str(words.choice(4)),
    }


def winogrande(words: Words, number: int) -> dict:
    return {
        "sentence": f"{words(4, 12)} _ {words(2, 8)}",
        "option1": words(1, 2),
        "option2": words(1, 2),
        "answer": str(1 + words.choice(2)),
    }


def piqa(words: Words, number: int) -> dict:
    sentences = {"goal": words(4, 10), "sol1": words(4, 12), "sol2": words(4, 12)}
    return {**sentences, "label": words.choice(2)}


def social_iqa(words: Words, number: int) -> dict:
    answers = {f"answer{letter}": words(1, 6) for letter in "ABC"}
    told = {"context": words(8, 20), "question": words(3, 6)}
    return {**told, **answers, "label": str(1 + words.choice(3))}


def lambada(words: Words, number: int) -> dict:
    return {"text": words(30, 60)}


# repository: {configuration: (its splits, how a document is made)}
HUB = {
    "Rowan/hellaswag": {"default": (("train", "validation"), hellaswag)},
    "EleutherAI/lambada_openai": {"default": (("test",), lambada), "de": (("test",), lambada)},
    "allenai/winogrande": {"winogrande_xl": (("train", "validation"), winogrande)},
    "allenai/openbookqa": {"main": (("train", "validation", "test"), question)},
    "allenai/ai2_arc": {
        "ARC-Easy": (("train", "validation", "test"), question),
        "ARC-Challenge": (("train", "validation", "test"), question),
    },
    "baber/piqa": {"default": (("train", "validation"), piqa)},
    "lighteval/siqa": {"default": (("train", "validation"), social_iqa)},
}


def save_repositories(folder: Path) -> dict[str, Path]:
    """{repository: its folder}, as tests/tools/fake_hub.py serves them."""
    words = Words()
    for name, configurations in HUB.items():
        listed = []
        for configuration, (splits, make_document) in configurations.items():
            paths = {split: f"{configuration}/{split}.jsonl" for split in splits}
            (folder / name / configuration).mkdir(parents=True)
            for path in paths.values():
                lines = [json.dumps(make_document(words, n)) for n in range(DOCUMENTS)]
                (folder / name / path).write_text("\n".join(lines))
            data = [{"split": split, "path": path} for split, path in paths.items()]
            listed.append({"config_name": configuration, "data_files": data})
        (folder / name / "README.md").write_text(f"---\nconfigs: {json.dumps(listed)}\n---\n")
    return {name: folder / name for name in HUB}


def save_story_cloze(folder: Path) -> Path:
    """The owners' CSV file of 2018."""
    words = Words()
    names = [f"InputSentence{i}" for i in (1, 2, 3, 4)]
    names += ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"]
    folder.mkdir(parents=True)
    with open(folder / STORY_CLOZE_FILE, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["InputStoryid", *names, "AnswerRightEnding"])
        for number in range(DOCUMENTS):
            writer.writerow([number, *(words(4, 9) for _ in names), 1 + words.choice(2)])
    return folder
