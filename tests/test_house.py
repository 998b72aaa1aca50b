"""The house rules: programs render their help, imports go one way, files stay small.

.venv/bin/python -m pytest tests/test_house.py
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_utils.program import CODE_ROOT
from figures.draw_house import FLOORS, arrows, files, imported
from tests import programs

FLOOR = {room: level for level, floor in enumerate(FLOORS) for room in floor}
FILES = [path for room in FLOOR for path in files(room)]
PROGRAMS = [p for p in FILES if 'if __name__ == "__main__":' in p.read_text()]


def name(path: Path) -> str:
    return str(path.relative_to(CODE_ROOT))


@pytest.mark.parametrize("program", [p for p in PROGRAMS if "figures" not in name(p)], ids=name)
def test_every_program_renders_its_help_from_another_folder(program, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    shown = programs.call(tmp_path, str(program), "--help")
    assert shown.code == 0 and "usage:" in shown.output, shown.errors
    assert list(elsewhere.iterdir()) == []


def test_a_python_without_the_packages_is_told_what_to_do(tmp_path):
    """In a fresh clone, before anything is installed."""
    for package in ("data_utils", "tools"):
        shutil.copytree(CODE_ROOT / package, tmp_path / package)
    command = [sys.executable, "-S", tmp_path / "tools/verify.py", tmp_path]  # -S: no packages
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 4 and shown.stderr.count("\n") == 1, shown.stderr
    assert shown.stderr.startswith("ERROR ") and "Fix: bash install.sh" in shown.stderr


def test_every_import_goes_down():
    assert [arrow for arrow in arrows() if FLOOR[arrow[0]] <= FLOOR[arrow[1]]] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_are_small_and_import_what_they_may(path):
    found = imported(path)
    package = path.relative_to(CODE_ROOT).parts[0]
    assert "tests" not in found
    assert package == "pretrain" or "deepspeed" not in found
    assert package != "data_utils" or "torch" not in found
    assert path.stem not in sys.stdlib_module_names and path.stem != "utils"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def without_encoding(call: ast.Call) -> bool:
    """Whether a call opens a file, or a program's output, as text in the locale's encoding."""
    function = call.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    owner = function.value if isinstance(function, ast.Attribute) else None
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if {"encoding", None} & named.keys():  # None: **options, as disk.atomic_file has them
        return False
    if name in ("read_text", "write_text"):  # of a Path, not of a module of ours
        modules = ("real_input", "make")
        return owner is not None and not (isinstance(owner, ast.Name) and owner.id in modules)
    if name in ("open", "fdopen", "TemporaryFile", "NamedTemporaryFile"):
        if isinstance(owner, ast.Name) and owner.id in ("os", "tarfile", "archive"):
            return False  # these give descriptors and bytes
        mode = named.get("mode", call.args[1] if len(call.args) > 1 else None)
        binary = isinstance(owner, ast.Name) and owner.id in ("gzip", "bz2", "lzma", "tempfile")
        return not binary if mode is None else "b" not in getattr(mode, "value", "")
    return name in ("run", "Popen", "check_output") and bool({"text"} & named.keys())


@pytest.mark.parametrize("path", FILES, ids=name)
def test_text_is_utf_8_whatever_the_locale(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [node.lineno for node in calls if without_encoding(node)]


@pytest.mark.parametrize(
    "code, refused",
    [
        ("open(path)", True),
        ("open(path, 'a+')", True),
        ("open(path, mode='w')", True),
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("subprocess.run(words, text=True)", True),
        ("gzip.open(path, 'rt')", True),
        ("open(path, 'rb')", False),
        ("gzip.open(path)", False),
        ("os.open(path, flags)", False),
        ("path.read_text(encoding='utf-8')", False),
        ("subprocess.run(words)", False),
    ],
)
def test_text_without_an_encoding_is_found(code, refused):
    assert without_encoding(ast.parse(code).body[0].value) is refused


def test_deepspeed_is_imported_in_one_place():
    using = {name(p) for p in FILES if "import deepspeed" in p.read_text()}
    assert using == {"pretrain/engine.py"}


def test_launchers_are_short():
    for path in (CODE_ROOT / "scripts").rglob("*.sh"):
        if path.parent.name not in ("scripts", "experiments", "slurm"):
            assert len(path.read_text().splitlines()) <= 15, path


def test_no_program_acts_on_what_is_for_people():
    """A manifest's report is not under its fingerprint: a change there would go unnoticed."""
    readers = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr == "report":
                owner = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
                readers |= {name(path)} if owner not in ("settings", "harness") else set()
    assert readers == {"tools/process_data/tokenize_pile.py"}  # it prints the table of sources
