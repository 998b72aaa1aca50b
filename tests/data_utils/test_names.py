"""Names and paths that users type are safe file names, or refused before any work."""

import os
import re
import sys

import pytest

from data_utils.errors import InputError
from data_utils.flags import base_folder, parse, under
from data_utils.names import flags_of_variables
from data_utils.program import CODE_ROOT
from eval import lm
from miniplm import difference, selection
from tests import make, programs
from tools.process_data import tokenize_pile

GOOD = [
    "a",
    "qwen_1.8B",
    "my run",
    "naïve 東京",
    "a,b",
    "r0.5",
    "x" * 200,
    "[a]*?",
    "a..b",
    "$HOME",
]
BAD = {
    "empty": "",
    "up": "..",
    "here": ".",
    "slash": "qwen/200M",
    "absolute": "/etc/x",
    "way up": "../x",
    "dash": "-x",
    "flag": "--help",
    "hidden": ".x",
    "newline": "a\nb",
    "tab": "a\tb",
    "escape": "\x1b[31m",
    "spaces": " ",
    "space behind": "a ",
    "long": "x" * 201,
    "long in bytes": "é" * 101,
    "no UTF-8": "a\udcff",
}
FIELDS = [  # settings that become a file's or folder's name
    (lm.Settings, "ckpt_name", {"model_path": "m"}),
    (lm.Settings, "split", {"model_path": "m"}),
    (difference.Settings, "teacher_name", {}),
    (difference.Settings, "ref_name", {}),
    (selection.Settings, "teacher_name", {}),
    (selection.Settings, "ref_name", {}),
    (selection.Settings, "data_name", {}),
    (tokenize_pile.Settings, "split", {}),
]


@pytest.mark.parametrize(
    "settings, field, others", FIELDS, ids=lambda v: getattr(v, "__module__", v)
)
def test_each_name_is_checked_where_flags_are_read(settings, field, others):
    for name in GOOD:
        assert getattr(settings(**others, **{field: name}), field) == name
    for name in BAD.values():
        if name == "" and field == "ckpt_name":
            continue  # its default
        with pytest.raises(ValueError, match=field.replace("_", "-")):
            settings(**others, **{field: name})
        words = [f"--{field.replace('_', '-')}={name}"]
        words += [word for k, v in others.items() for word in ("--" + k.replace("_", "-"), v)]
        with pytest.raises(InputError) as caught:
            parse(settings, words)
        assert caught.value.code == 2 and "\n" not in str(caught.value)
        assert str(caught.value).encode() and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("path, name", [("a/b", "b"), ("a/b/", "b"), (".", None), ("a/..", None)])
def test_the_name_of_a_result_by_its_models_folder(path, name):
    if name:
        assert lm.Settings(model_path=path).ckpt_name == name
    else:
        with pytest.raises(ValueError, match="ckpt-name"):
            lm.Settings(model_path=path)


def test_a_bad_name_ends_before_the_evaluation(tmp_path):
    for name in ("qwen/200M", "..", "a\nb"):
        words = ["--model-path", "none", "--ckpt-name", name]
        run = programs.call(tmp_path, "eval.lm", tmp_path, *words)
        programs.one_message(run, 2, "--ckpt-name")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["my run", "東京", "[a]*", "x" * 200])
def test_names_that_are_unusual_work(name, tmp_path, tokenizer_folder, monkeypatch):
    base = tmp_path / "a base [1]"
    rows = make.random_rows(4, 600, 0, longest=9)
    make.save_corpus(base / name / "c-65", rows, tokenizer_folder, split=name)
    make.save_model(base / "m", make.qwen_config(600), 0, tokenizer_folder)
    flags = {"model_path": "m", "data_dir": f"{name}/c-65", "split": name, "ckpt_name": name}
    words = [str(word) for word in programs.flags({**flags, "precision": "fp32"})]
    monkeypatch.setattr(sys, "argv", ["lm.py", str(base), *words])
    lm.main()
    found = {path.name for path in (base / "results/eval/lm").iterdir()}
    assert found == {f"{name}.json", f"{name}.npy"}


@pytest.mark.parametrize(
    "path",
    ["a\nb", "results/\x1b[1m", "x" * 256, "é" * 128, "a/" * 1800, "a\udcffb", "~/" + "y" * 300],
)
def test_paths_that_no_file_system_takes(path, tmp_path):
    for read in (lambda: under(tmp_path, path), lambda: base_folder(path)):
        with pytest.raises(InputError) as caught:
            read()
        assert caught.value.code == 2 and "\n" not in str(caught.value)
        assert str(caught.value).encode()


@pytest.mark.parametrize("path", ["a b", "-x", "x" * 255, "~nobody-here/x", "a/../b", "[x]*"])
def test_paths_that_are_unusual_work(path, tmp_path):
    place = under(tmp_path, path)
    place.mkdir(parents=True)
    assert os.path.samefile(place, tmp_path / path if ".." not in path else tmp_path / "b")
    assert base_folder(str(place)) == place


@pytest.mark.parametrize(
    "variables, words, expected",
    [
        ({}, "base", {}),
        ({"RATIO": "0.30"}, "base", {"ratio": 0.3}),
        ({"RATIO": "0.3"}, "base 0.2", {"ratio": 0.2}),
        ({"RATIO": "0.3"}, "base --ratio=0.2", {"ratio": 0.2}),
        ({"RATIO": "0.3"}, "base --tokens 9", {"ratio": None, "tokens": 9}),
        ({"RATIO": ""}, "", {"ratio": 0.5}),
        ({"TEACHER_NAME": "T", "REF_NAME": "my R"}, "base --teacher_name U",
         {"teacher_name": "U", "ref_name": "my R"}),
        ({"DATA_NAME": "mix", "MAX_LENGTH": "65"}, "base --scores s",
         {"data_name": "mix", "data_dir": "processed_data/pretrain/mix/qwen-65", "scores": "s"}),
        ({"TOKENIZER_NAME": "bpe"}, "base --data-dir d",
         {"data_dir": "d", "scores": "results/scores/pile/bpe-1025"}),
        ({"CRITERION": "temperature", "TAU": "0.5", "SCORE_SHARDS": "0:9"}, "base --tau 2",
         {"criterion": "temperature", "tau": 2.0, "shards": "0:9"}),
        ({"CRITERION": "external", "SCORE_FILE": "s.npy", "BAND": "low"}, "base",
         {"criterion": "external", "score_file": "s.npy", "band": "low"}),
    ],
)  # fmt: skip
def test_exported_names_reach_the_selection(variables, words, expected, capsys):
    """What is exported for the launchers holds for the programs without one; flags win."""
    more = flags_of_variables(selection.Settings, words.split(), variables)
    found = parse(selection.Settings, words.split() + more, positional="base_path ratio")
    plain = parse(selection.Settings, words.split(), positional="base_path ratio")
    assert vars(found) == vars(plain) | expected
    assert all(flag in capsys.readouterr().err for flag in more[:1])


def test_defaults_of_names_are_those_of_the_launchers():
    common = (CODE_ROOT / "scripts/common.sh").read_text(encoding="utf-8")
    variables = dict(re.findall(r"^(\w+)=\$\{\1:-([^$}]+)\}$", common, re.M))
    del variables["PYTHON"]
    assert len(variables) == 6
    for settings in (selection.Settings, difference.Settings):
        flags = flags_of_variables(settings, [], variables)
        assert "--ref-name" in flags and parse(settings, flags) == settings()
    assert flags_of_variables(selection.Settings, [], {**variables, "RATIO": ""})[-1] == "qwen_104M"
