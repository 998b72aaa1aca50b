"""Small data sets in the formats of the nine tasks, and a stand-in for the hub that serves them.

The stand-in answers what the data set library asks of a hub's repository: its revision, its list of
files, the files. HF_ENDPOINT points to it.
"""

import contextlib
import csv
import hashlib
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests import make

DOCUMENTS = 7  # per task: divided by no number of ranks
SHA = "0123456789abcdef0123456789abcdef01234567"
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


def repositories() -> dict[str, dict[str, bytes]]:
    """{repository: {file: content}}"""
    words, found = Words(), {}
    for name, configurations in HUB.items():
        files, listed = {}, []
        for configuration, (splits, make_document) in configurations.items():
            paths = {split: f"{configuration}/{split}.jsonl" for split in splits}
            for path in paths.values():
                lines = [json.dumps(make_document(words, n)) for n in range(DOCUMENTS)]
                files[path] = "\n".join(lines).encode()
            data = [{"split": split, "path": path} for split, path in paths.items()]
            listed.append({"config_name": configuration, "data_files": data})
        files["README.md"] = f"---\nconfigs: {json.dumps(listed)}\n---\n".encode()
        found[name] = files
    return found


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


class Hub(BaseHTTPRequestHandler):
    """The requests of huggingface_hub for data sets."""

    files = repositories()
    asked: list[str] = []

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        words = path.strip("/").split("/")
        api = words[0] == "api"
        repository = "/".join(words[2:4] if api else words[1:3])
        files = self.files.get(repository)
        if files is None or words[int(api)] != "datasets":
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif api:
            self.describe(repository, files, words[4:])
        else:
            self.send_file(files.get("/".join(words[5:])))

    def describe(self, repository: str, files: dict, rest: list[str]) -> None:
        if rest[:1] in (["tree"], ["paths-info"]):
            below = "/".join(rest[2:])
            found = [entry(n, c) for n, c in files.items() if n.startswith(below)]
            self.reply(200, json.dumps(found).encode())
            return
        siblings = [{"rfilename": name} for name in files]
        about = {"id": repository, "sha": SHA, "siblings": siblings, "private": False, "tags": []}
        self.reply(200, json.dumps(about | {"gated": False, "downloads": 0}).encode())

    def send_file(self, content: bytes | None) -> None:
        if content is None:
            self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        tag = hashlib.sha1(content).hexdigest()
        self.reply(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": SHA})

    def reply(self, code: int, body: bytes, headers: dict | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def entry(name: str, content: bytes) -> dict:
    """A file in a list of files."""
    return {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }


@contextlib.contextmanager
def hub() -> Iterator[str]:
    """The address of a hub that has the data sets."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
