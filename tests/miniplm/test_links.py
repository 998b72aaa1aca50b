"""Folders of BASE_PATH on other disks: whether one is a link or not, all programs do the same."""

import os
import sys
from pathlib import Path

import pytest

from data_utils import artefact
from data_utils.artefact_writer import Output, lock
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.flags import base_folder, under
from miniplm import difference, selection
from tests import make
from tools import split_ref_data, verify

SCORES, CORPUS = "results/scores/pile/bpe-65", "processed_data/pretrain/pile/bpe-65"
NAMES = ["--scores", SCORES, "--teacher-name", "T", "--ref-name", "R"]
LINKED = {
    "none": [],
    "results": ["results"],
    "processed_data": ["processed_data"],
    "checkpoints": ["checkpoints"],
    "all": ["results", "processed_data", "checkpoints"],
    "the corpus": [CORPUS],
    "a store": [f"{SCORES}/T"],
    "all stores": ["results/scores"],
    "BASE_PATH": ["."],
    "a link to a link": ["results/scores", "results"],
}


def call(monkeypatch, main, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    main()


def put_elsewhere(base: Path, name: str, scratch: Path) -> None:
    """Move a folder to another depth of another place and leave a link."""
    place = base if name == "." else base / name
    target = scratch / "disk" / "of" / "many" / (name.replace("/", "_") if name != "." else "base")
    target.parent.mkdir(parents=True, exist_ok=True)
    place.rename(target)
    place.symlink_to(target)


@pytest.fixture
def base(tmp_path, tokenizer_folder, case) -> Path:
    """BASE_PATH with a corpus and two stores of scores; what the case says is elsewhere."""
    base = tmp_path / "home" / "base"
    rows = make.random_rows(12, 600, 0)
    make.save_corpus(base / CORPUS, rows, tokenizer_folder, shard_size=4)
    for name, value in (("teacher", -2.0), ("reference", -3.0)):
        model = base / "checkpoints" / name
        make.save_model(model, make.qwen_config(600), len(name), tokenizer_folder)
        store = base / SCORES / name[0].upper()
        sums = [value * (i % 5 + 1) for i in range(4)]
        relative = os.path.relpath(model, base / SCORES)
        make.save_scores(store, base / CORPUS, relative, sums, [2] * 4, shards=[0, 1])
    for name in LINKED[case]:
        put_elsewhere(base, name, tmp_path)
    return base


@pytest.mark.parametrize("case", LINKED)
def test_selection_and_its_check_do_not_see_links(base, monkeypatch):
    call(monkeypatch, difference.main, base, *NAMES, "--allow-weaker-teacher", True)
    for criterion in ("difference", "teacher"):
        words = ["--data-dir", CORPUS, "--save", f"processed_data/pretrain/{criterion}/bpe-65"]
        call(monkeypatch, selection.main, base, *words, *NAMES, "--criterion", criterion)
    made = artefact.read_manifest(base / "processed_data/pretrain/difference/bpe-65")
    assert made.counts["kept"] == 2
    recorded = {name: entry["path"] for name, entry in made.inputs.items()}
    assert recorded == {"corpus": "../../pile/bpe-65", "scores": f"../../../../{SCORES}/diff-T-R"}
    for place in (base, base / "results"):
        call(monkeypatch, verify.main, place)
    found = {str(folder.relative_to(base)) for folder in verify.find(base)}
    assert found >= {CORPUS, f"{SCORES}/T", f"{SCORES}/R", f"{SCORES}/diff-T-R"}
    assert len(found) == 6


@pytest.mark.parametrize("case", ["none", "results", "all", "BASE_PATH"])
def test_another_input_is_noticed_through_links(base, tmp_path, tokenizer_folder, monkeypatch):
    (base / CORPUS).rename(tmp_path / "scored")
    make.save_corpus(base / CORPUS, make.random_rows(12, 600, 0, seed=1), tokenizer_folder)
    with pytest.raises(InputError, match="not the one that was scored"):
        call(monkeypatch, difference.main, base, *NAMES, "--allow-weaker-teacher", True)
    problems = verify.check(base / SCORES / "T", None)
    assert len(problems) == 1 and "is another one now" in problems[0]


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("linked", [[], ["ref"], ["pile"], ["pile", "ref"], ["pile/bpe-65"]])
def test_the_references_part_of_a_linked_corpus(
    linked, hard, tmp_path, tokenizer_folder, monkeypatch
):
    base = tmp_path / "home" / "base"
    rows = make.random_rows(12, 600, 0)
    make.save_corpus(base / "pile/bpe-65", rows, tokenizer_folder, shard_size=4)
    (base / "ref").mkdir()
    for name in linked:
        put_elsewhere(base, name, tmp_path)
    if not hard:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    words = [base, "--data-dir", "pile/bpe-65", "--save", "ref/bpe-65", "--shards", "1:3"]
    call(monkeypatch, split_ref_data.main, *words)
    part = Corpus(base / "ref/bpe-65")
    assert len(part) == 8 and part.row(0).tolist() == rows[4].tolist()
    given, made = base / "pile/bpe-65/data_1.bin", base / "ref/bpe-65/data_0.bin"
    assert made.is_symlink() != hard and made.samefile(given)


def test_files_that_are_links_are_linked_to_what_they_mean(tmp_path, tokenizer_folder):
    corpus = make.save_corpus(tmp_path / "a/bpe-65", make.random_rows(4, 600, 0), tokenizer_folder)
    (corpus / "data_0.bin").rename(tmp_path / "tokens")
    (corpus / "data_0.bin").symlink_to("../../tokens")
    (tmp_path / "deep/er").mkdir(parents=True)
    split_ref_data.link(corpus / "data_0.bin", tmp_path / "deep/er/data_0.bin")
    assert (tmp_path / "deep/er/data_0.bin").samefile(tmp_path / "tokens")


def test_spellings_of_one_place_are_one_place(tmp_path, monkeypatch):
    base, disk = tmp_path / "base", tmp_path / "disk" / "far"
    for folder in (base, disk / "results", disk / "data"):
        folder.mkdir(parents=True)
    (base / "results").symlink_to(disk / "results")
    (tmp_path / "link").symlink_to(base)
    monkeypatch.chdir(base)
    for spelled in (base, f"{base}/", f"{base}/../base", "../base", ".", tmp_path / "link", "./"):
        assert base_folder(str(spelled)) == base
    assert under(base, "results/x") == base / "results/x"
    assert under(base, "./results//x/") == base / "results/x"
    # What ls shows for it: the folder beside the link's target.
    assert under(base, "results/../data") == disk / "data"
    assert under(base, "none/../results/x") == base / "results/x"
    assert under(base, base / "results" / "x") == base / "results/x"


@pytest.mark.parametrize("spelled", ["results/run", "../link/results/run", "../disk/results/run"])
def test_lock_and_resume_under_another_spelling(spelled, tmp_path):
    base, disk = tmp_path / "base", tmp_path / "disk"
    for folder in (base, disk / "results"):
        folder.mkdir(parents=True)
    (base / "results").symlink_to(disk / "results")
    (tmp_path / "link").symlink_to(base)
    inputs = {"text": (base / "data", {"kind": "text", "fingerprint": "f"})}

    def output(place: str) -> Output:
        return Output(under(base, place), "corpus", "tests", {"length": 3}, {}, inputs)

    first, second = output("results/run"), output(spelled)
    with lock(first.begin().folder), pytest.raises(InputError, match="is writing"):
        second.make(lambda: None)
    second.make(lambda: second.finish([], {}))
    assert first.begin().done


def test_loops_of_links_end(tmp_path, tokenizer_folder):
    corpus = make.save_corpus(tmp_path / "a", make.random_rows(4, 600, 0), tokenizer_folder)
    (corpus / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert verify.find(tmp_path) == [corpus]
    with pytest.raises(InputError):
        base_folder(str(tmp_path / "self"))


def test_a_linked_tokenizer_is_a_part_of_a_corpus_of_others(tmp_path, tokenizer_folder):
    corpus = make.save_corpus(tmp_path / "a-65", make.random_rows(4, 600, 0), tokenizer_folder)
    before = Corpus(make.disown(corpus)).identity
    (corpus / "tokenizer").rename(tmp_path / "elsewhere")
    (corpus / "tokenizer").symlink_to("../elsewhere")
    assert Corpus(corpus).identity == before
    config = tmp_path / "elsewhere" / "tokenizer_config.json"
    config.write_text(config.read_text() + " ")
    assert Corpus(corpus).identity != before
