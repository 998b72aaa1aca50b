"""The harness on small data sets of the nine tasks' formats: against itself and lm-eval's own."""

import json
import shutil
from pathlib import Path

import pytest

from eval import cloze, harness_results
from eval.harness_tasks import NINE
from tests import make, programs, worlds
from tests.eval import harness_world
from tests.eval.harness_data import DOCUMENTS

ROWS = 99  # of held-out text
NORMALISED = {"hellaswag", "openbookqa", "arc_easy", "arc_challenge", "piqa"}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return worlds.shared(tmp_path_factory, "harness world", harness_world.build)


def read(world: Path, name: str, kind: str = "json") -> dict:
    return json.loads((world / f"results/{name}/{name}.{kind}").read_text())


def test_two_ranks_find_exactly_what_one_does(world):
    one, two = read(world, "one"), read(world, "two")
    assert one["tasks"] == two["tasks"] and one["average"] == two["average"]
    assert one["key"] == two["key"]
    theirs = [read(world, name, "lm_eval.json")["results"] for name in ("one", "two")]
    assert theirs[0] == theirs[1] and set(theirs[0]) == set(NINE)


def test_the_table_equals_lm_evals_own_command_line(world, tmp_path):
    """Number for number; one standard error is drawn from values whose last bits may differ."""
    expected = harness_world.by_lm_eval(world, tmp_path)
    ours, result = read(world, "one", "lm_eval.json"), read(world, "one")
    assert ours["versions"] == expected["versions"]
    for name, figures in expected["results"].items():
        found = ours["results"][name]
        assert {key: value for key, value in found.items() if "perplexity" not in key} == {
            key: value for key, value in figures.items() if "perplexity" not in key
        }
        for key in (key for key in figures if "perplexity" in key):
            assert found[key] == pytest.approx(figures[key], rel=1e-5)
        metric = "acc_norm" if name in NORMALISED else "acc"
        task = result["tasks"][name]
        assert (task["metric"], task["n"]) == (metric, DOCUMENTS)
        assert task["value"] == figures[f"{metric},none"]
        assert task["stderr"] == figures[f"{metric}_stderr,none"]
    values = [task["value"] for task in result["tasks"].values()]
    assert result["average"]["value"] == pytest.approx(sum(values) / 9, rel=1e-12)
    assert len(set(values)) > 2  # they say something


def test_the_printed_and_the_written_table(world):
    """In the order of the paper, in points of 100, the average last."""
    result, shown = read(world, "one"), (world / "one.out").read_text()
    lines = [line for line in shown.splitlines() if line.startswith((*NINE, "average"))]
    assert [line.split()[0] for line in lines] == [*NINE, "average"]
    written = (world / "results/one/one.md").read_text().splitlines()
    assert len(written) == 2 + 10 and written[-1].startswith("| average over 9 |")
    for name, line, cells in zip(NINE, lines, written[2:], strict=False):
        value = f"{100 * result['tasks'][name]['value']:.2f}"
        assert value in line.split() and cells.split(" | ")[2] == value
    assert "bootstrapping" not in shown


def call(world: Path, folder: Path, *flags: object, **variables: object) -> programs.Program:
    """The program in a process of its own, with the world's data sets."""
    variables = {"HF_HOME": world / "hf", "STORYCLOZE_DIR": world / "story cloze", **variables}
    return programs.call(folder, "eval.harness", *flags, **variables)


def test_a_runs_steps_their_curve_and_nothing_twice(world, tmp_path, tokenizer_folder):
    """On a task of our own made of held-out text, beside one of lm-eval's."""
    base = tmp_path / "base"
    make_cloze(base, tokenizer_folder)
    for step in (1, 2):
        config = make.qwen_config(600)
        make.save_model(base / f"run/step_{step:06d}", config, step, tokenizer_folder)
    flags = [base, "--model-path", "run", "--tasks", "heldout_cloze,winogrande", "--limit", 5]
    first = call(world, tmp_path, *flags)
    assert first.code == 0, first.errors
    results = base / harness_world.RESULTS
    shown = {path.name for path in results.iterdir()}
    steps = [f"run-step_{step:06d}" for step in (1, 2)]
    kinds = ("json", "md", "lm_eval.json")
    assert shown == {"run.md", "run.png", *(f"{s}.{kind}" for s in steps for kind in kinds)}
    assert (results / "run.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((results / f"{steps[0]}.json").read_text())
    assert found["tasks"]["heldout_cloze"]["n"] == 5
    assert found["tasks"]["heldout_cloze"]["documents"] == 12
    shutil.copytree(base / "run/step_000002", base / "run/step_000003")
    (results / f"{steps[0]}.json").write_text("{}")  # as if it had not been evaluated
    again = call(world, tmp_path, *flags)
    assert again.code == 0, again.errors
    known = [line.split(":")[0] for line in again.output.splitlines() if "already" in line]
    assert known == [steps[1], "run-step_000003"]
    assert json.loads((results / f"{steps[0]}.json").read_text()) == found
    third = json.loads((results / "run-step_000003.json").read_text())
    second = json.loads((results / f"{steps[1]}.json").read_text())
    assert third["tasks"] == second["tasks"] and third["name"] == "run-step_000003"


def test_of_a_data_set_the_part_that_is_missing_is_named(world, tmp_path):
    shutil.copytree(world / "hf", tmp_path / "hf")
    shutil.rmtree(tmp_path / "hf/datasets/allenai___ai2_arc/ARC-Challenge")
    run = call(world, tmp_path, world, "--model-path", "model", HF_HOME=tmp_path / "hf")
    programs.one_message(run, 2, "not here: arc_challenge in", "--tasks arc_challenge;")


def make_cloze(base: Path, tokenizer: Path) -> list[dict]:
    """The task heldout_cloze in BASE_PATH; its documents."""
    rows = make.text_rows(tokenizer, ROWS, longest=65)
    make.save_corpus(base / "held out", rows, tokenizer, split="test")
    settings = ["--data-dir", "held out", "--documents", "12"]
    settings += ["--context-words", "5", "--ending-words", "3"]
    run = programs.call(base, "eval.cloze", base, *settings)
    assert run.code == 0, run.errors
    lines = (base / "configs/lm_harness_tasks/heldout_cloze.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_task_of_held_out_text(tmp_path, tokenizer_folder):
    documents = make_cloze(tmp_path, tokenizer_folder)
    rows = make.text_rows(tokenizer_folder, ROWS, longest=65)
    tokenizer = cloze.load_tokenizer(tokenizer_folder)
    texts = [" ".join(tokenizer.decode(row.tolist()).split()) for row in rows]
    texts = [text.split("<|endoftext|>")[0] for text in texts]
    assert len(documents) == 12 and len({document["label"] for document in documents}) > 1
    for document in documents:
        right = document["choices"][document["label"]]
        assert any(text.startswith(f"{document['context']} {right}") for text in texts)
        assert len(set(document["choices"])) == 4
    assert make_documents_again(documents) == documents


def make_documents_again(documents: list[dict]) -> list[dict]:
    pieces = [(d["context"], d["choices"][d["label"]]) for d in documents]
    return cloze.make_documents(pieces, cloze.Settings().seed)


def test_calibration_error_by_hand():
    """Two bins: three documents of confidence 0.5, one right; one of 0.9, right."""
    half = [(-1.0, False), (-1.0, False)]
    sure = [(0.0, True), (-2.1972245773362196, False)]
    samples = [{"acc": acc, "filtered_resps": half} for acc in (1.0, 0.0, 0.0)]
    samples.append({"acc": 1.0, "filtered_resps": sure})
    expected = 3 / 4 * (1 / 2 - 1 / 3) + 1 / 4 * (1 - 0.9)
    assert harness_results.calibration_error(samples) == pytest.approx(expected, abs=1e-12)
    assert harness_results.calibration_error([{"filtered_resps": half}]) is None


def test_an_average_over_eight_says_so(world):
    figures = read(world, "one")["tasks"]
    eight = [name for name in NINE if name != "storycloze_2018"]
    outcome = read(world, "one", "lm_eval.json")
    outcome["n-samples"] = {name: outcome["n-samples"][name] for name in eight}
    outcome["samples"] = dict.fromkeys(eight, [])
    tasks, average = harness_results.summarise(outcome)
    assert harness_results.average_title(average) == "average over 8 of 9"
    assert average["value"] == pytest.approx(sum(figures[n]["value"] for n in eight) / 8)
    assert list(tasks) == eight
