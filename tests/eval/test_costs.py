"""eval/costs.py: what a student and its teacher cost, along hand-made chains of manifests.

.venv/bin/python -m pytest tests/eval/test_costs.py
"""

from pathlib import Path

import pytest

from data_utils.artefact import read_manifest
from data_utils.artefact_writer import Output
from eval.costs import UNKNOWN, run_flops

# Powers of ten, so that a sum shows what it is made of.
STUDENT, LIVE, TEACHER, REFERENCE, TRAINED, GENERATED, BEFORE = (10**n for n in range(7))
REGRESSED, PREDICTED = 10**7, 10**8
STEPS = {"step": 1, "student_flops": STUDENT, "teacher_flops": 0}


@pytest.fixture
def make(tmp_path):
    """Makes a finished artefact: kind, name, counts, inputs (role=name), content."""

    def artefact(kind: str, name: str, counts: dict, content: dict | None = None, **inputs: str):
        sources = {
            role: (tmp_path / source, read_manifest(tmp_path / source).identity)
            for role, source in inputs.items()
        }
        content = content or {}
        if kind == "scores":
            content |= {"shards": [0, 1]}
        output = Output(tmp_path / name, kind, "tests", {"name": name, **content}, {}, sources)
        output.begin().finish([], counts)
        return tmp_path / name

    return artefact


@pytest.fixture
def world(make):
    """A corpus, its scores by a published teacher and a reference trained here, the selection."""
    make("corpus", "corpus", {})
    make("model", "teacher", {"files": 3}, {"repository": "published"})
    make("corpus", "part", {}, corpus="corpus")
    counts = {"step": 1, "student_flops": TRAINED, "teacher_flops": 0}
    make("model", "reference", counts, corpus="part")
    make("scores", "T", {"flops": TEACHER}, corpus="corpus", model="teacher")
    make("scores", "R", {"flops": REFERENCE}, corpus="corpus", model="reference")
    make("scores", "diff", {}, teacher="T", reference="R", corpus="corpus")
    chosen = {"corpus": "corpus", "scores": "diff"}
    make("corpus", "selected", {}, {"criterion": "difference"}, **chosen)
    make("corpus", "random", {}, {"criterion": "random"}, **chosen)
    make("corpus", "by teacher", {}, {"criterion": "teacher"}, **chosen)
    make("corpus", "by reference", {}, {"criterion": "reference_band"}, **chosen)
    make("corpus", "prior", {}, {"criterion": "prior"}, corpus="corpus")
    make("corpus", "external", {}, {"criterion": "external"}, corpus="corpus", score_file="T")
    make("corpus", "converted", {}, corpus="selected")
    labelled = {"labels": "diff", "corpus": "part", "model": "reference"}
    make("model", "proxy", {"step": 1, "student_flops": REGRESSED, "teacher_flops": 0}, **labelled)
    make("scores", "predicted", {"flops": PREDICTED}, corpus="corpus", model="proxy")
    chosen = {"corpus": "corpus", "scores": "predicted"}
    make("corpus", "by proxy", {}, {"criterion": "proxy"}, **chosen)
    make("scores", "cache", {"flops": TEACHER}, corpus="corpus", model="teacher")
    make("corpus", "generated", {"flops": GENERATED}, corpus="corpus", model="teacher")
    return make


def costs(folder: Path) -> tuple:
    return run_flops(folder, read_manifest(folder))


SELECTED = TEACHER + REFERENCE + TRAINED
LIVE_STEPS = {**STEPS, "teacher_flops": LIVE}


@pytest.mark.parametrize(
    "inputs, counts, teacher",
    [
        ({"corpus": "corpus"}, STEPS, 0),
        ({"corpus": "random"}, STEPS, 0),
        ({"corpus": "prior"}, STEPS, 0),
        ({"corpus": "external"}, STEPS, UNKNOWN),
        ({"corpus": "selected"}, STEPS, SELECTED),
        ({"corpus": "converted"}, STEPS, SELECTED),
        ({"corpus": "by teacher"}, STEPS, TEACHER),
        ({"corpus": "by reference"}, STEPS, REFERENCE + TRAINED),
        # The reference is trained once, as the proxy's beginning and as what its labels need.
        ({"corpus": "by proxy"}, STEPS, SELECTED + REGRESSED + PREDICTED),
        ({"corpus": "corpus", "teacher": "teacher"}, LIVE_STEPS, LIVE),
        ({"corpus": "selected", "teacher": "teacher"}, LIVE_STEPS, LIVE + SELECTED),
        ({"corpus": "corpus", "teacher_cache": "cache"}, STEPS, TEACHER),
        # One pass gives scores and cache.
        ({"corpus": "selected", "teacher_cache": "cache"}, STEPS, SELECTED),
        ({"corpus": "generated"}, STEPS, GENERATED),
    ],
    ids=str,
)
def test_all_that_a_run_needed_of_a_teacher(world, inputs, counts, teacher):
    assert costs(world("model", "run", counts, **inputs)) == (STUDENT, teacher)


def test_a_run_that_began_with_a_trained_student(world):
    world("model", "student", {**STEPS, "student_flops": BEFORE}, corpus="selected")
    begun = {"corpus": "corpus", "model": "student", "teacher": "teacher"}
    folder = world("model", "run", LIVE_STEPS, **begun)
    assert costs(folder) == (STUDENT + BEFORE, LIVE + SELECTED)


def test_what_is_not_recorded_is_unknown(world):
    assert costs(world("model", "old", {"step": 1}, corpus="corpus")) == (UNKNOWN, UNKNOWN)
    world("scores", "old T", {}, corpus="corpus", model="teacher")
    world("scores", "old diff", {}, teacher="old T", reference="R", corpus="corpus")
    world("corpus", "old selected", {}, corpus="corpus", scores="old diff")
    assert costs(world("model", "a", STEPS, corpus="old selected")) == (STUDENT, UNKNOWN)
    # A reference and a selection from elsewhere, a text whose generation was not counted.
    world("model", "published", {}, {"repository": "x"})
    world("scores", "their R", {"flops": 1}, corpus="corpus", model="published")
    world("scores", "their diff", {}, teacher="T", reference="their R", corpus="corpus")
    world("corpus", "ours", {}, corpus="corpus", scores="their diff")
    world("corpus", "theirs", {}, {"repository": "x"})
    world("corpus", "uncounted", {}, corpus="corpus", model="teacher")
    for number, corpus in enumerate(("ours", "theirs", "uncounted")):
        folder = world("model", f"run {number}", STEPS, corpus=corpus)
        assert costs(folder) == (STUDENT, UNKNOWN)


def test_an_input_that_is_another_one_now_is_unknown(world, tmp_path):
    folder = world("model", "run", STEPS, corpus="selected")
    for path in (tmp_path / "diff").iterdir():
        path.unlink()
    assert costs(folder) == (STUDENT, UNKNOWN)
