"""A selection that is killed at any moment ends with the bytes of an undisturbed one.

.venv/bin/python -m pytest tests/miniplm/test_selection_resume.py
"""

from pathlib import Path

import numpy as np
import pytest

from data_utils import artefact_writer
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from miniplm import selection, shard_copy
from tests import make, programs
from tests.miniplm.test_selection import store

ROWS = 400
FLAGS = ["--data-dir", "corpus", "--scores", "scores", "--teacher-name", "T", "--ref-name", "R"]

# Phases of a run: where a kill may come, before and after the call.
PHASES = {
    "choosing": (selection, "descending"),
    "copying tokens": (Corpus, "sequences"),
    "writing an index": (shard_copy, "write_index"),
    "writing a side file": (shard_copy.np, "save"),
    "renaming a file": (artefact_writer.os, "replace"),
    "looking for a copied shard": (shard_copy, "is_there"),
    "the tokenizer": (shard_copy, "copy_tokenizer"),
    "checksums": (artefact_writer, "describe"),
    "the manifest": (Output, "finish"),
}
ONCE = ("choosing", "the tokenizer", "the manifest")  # called once a run


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    base = tmp_path_factory.mktemp("base")
    rows = make.random_rows(ROWS, 600, 0, longest=40)
    corpus = make.save_corpus(base / "corpus", rows, tokenizer_folder, shard_size=90)
    store(base, corpus, np.random.default_rng(0).normal(size=ROWS).round(1), 0)
    for name in ("log.out", "log.err"):
        (base / name).touch()
    return base


def select(base: Path, save: str, kill: tuple = ()) -> int:
    """Run the program as a process of its own; kill: (phase, call) at which it kills itself."""
    words = [str(base), *FLAGS, "--save", save, "--shard-size", "30"]
    process = programs.CONTEXT.Process(target=run_and_die, args=(words, kill))
    process.start()
    process.join(120)
    return process.exitcode


def run_and_die(words: list[str], kill: tuple) -> None:
    """The program's main() with small pieces; kill[0]: a phase, kill[1]: half calls before it."""
    shard_copy.ROWS = 8
    if kill:
        programs.kill_at(*PHASES[kill[0]], kill[1])
    programs.main("miniplm.selection", words, {}, Path(words[0]) / "log.out")


@pytest.fixture(scope="module")
def undisturbed(base) -> dict[str, str]:
    assert select(base, "undisturbed") == 0, (base / "log.err").read_text()
    found = make.content(base / "undisturbed")
    assert len([name for name in found if name.endswith(".bin")]) == 7
    return found


def test_killed_in_every_phase_it_ends_with_the_same_bytes(base, undisturbed):
    programs.kill_in_every_phase(
        lambda kill: select(base, "killed", kill=kill),
        base / "killed", undisturbed, PHASES, ONCE, draws=(5, 16, 8), kills=16,
    )  # fmt: skip


def test_a_start_goes_on_behind_the_last_complete_shard(base, undisturbed):
    folder = base / "resumed"
    assert select(base, "resumed", kill=("writing an index", 9)) != 0
    before = {path.name: path.stat().st_ino for path in folder.glob("source_row_*")}
    assert len(before) == 4
    assert select(base, "resumed") == 0
    after = {path.name: path.stat().st_ino for path in folder.glob("source_row_*")}
    assert before.items() <= after.items() and len(after) == 7  # none of them was written again
    assert make.content(folder) == undisturbed


@pytest.mark.parametrize("damage", ["data_1.bin", "data_1.idx", "source_row_1.npy", "other rows"])
def test_a_shard_that_was_cut_off_or_has_other_rows_is_copied_again(base, undisturbed, damage):
    folder = base / f"damaged {damage}"
    assert select(base, folder.name, kill=("writing an index", 9)) != 0
    if damage == "other rows":
        np.save(folder / "source_row_1.npy", np.load(folder / "source_row_1.npy") + 1)
    else:
        path = folder / damage
        path.write_bytes(path.read_bytes()[:-7])
    assert select(base, folder.name) == 0, (base / "log.err").read_text()
    assert make.content(folder) == undisturbed
