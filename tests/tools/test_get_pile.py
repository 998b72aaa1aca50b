"""tools/get_pile.py: local text, copies in every format, the hub (a served one), kills, bad input.

python -m pytest tests/tools/test_get_pile.py
"""

import base64
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from data_utils.artefact import read_manifest
from data_utils.errors import EnvironmentFault, InputError
from data_utils.program import CODE_ROOT
from tests import make
from tests.tools import fake_hub
from tokenization.text import Documents
from tokenization.text_folder import text_files
from tools import get_pile
from tools.offline import local_text

REPOSITORY = "monology/pile-uncopyrighted"


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of everything but what differs between runs (times, process ids)."""
    left_out = {"manifest.json", "settings.json", ".lock"}
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in left_out}


# --- text of this machine -------------------------------------------------------------------------

SIZES = ("--local-bytes", 400_000, "--heldout-bytes", 80_000)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> dict[str, Path]:
    """The same drawn twice, with and without noise, by processes that hash strings differently."""
    made = {noise: tmp_path_factory.mktemp("a folder with spaces") for noise in ("0", "0.3")}

    def draw(noise: str) -> None:
        program = ("tools/get_pile.py", made[noise], "--source", "local", "--plant-noise", noise)
        make.run(*program, *SIZES, PYTHONHASHSEED=1 if noise == "0" else 2)

    with ThreadPoolExecutor() as pool:
        list(pool.map(draw, made))
    return {noise: base / "data/pile" for noise, base in made.items()}


def test_local_sources_are_balanced_and_documents_whole(local):
    documents = read(local["0"] / "train/0.jsonl")
    sizes = Counter()
    for document in documents:
        size = len(document["text"].encode())
        assert 200 <= size <= 16_384
        sizes[document["meta"]["pile_set_name"]] += size
    assert set(sizes) == set(local_text.SOURCES)
    assert 400_000 <= sizes.total() < 400_000 + 16_384
    assert max(sizes.values()) < 0.3 * sizes.total()
    manifest = read_manifest(local["0"] / "train")
    assert manifest.counts["documents"] == len(documents)
    assert manifest.report["sources"] == Counter(d["meta"]["pile_set_name"] for d in documents)


def test_local_text_is_the_same_each_time(local):
    assert files(local["0"] / "heldout") == files(local["0.3"] / "heldout")
    kept = [d for d in read(local["0.3"] / "train/0.jsonl") if not is_noise(d)]
    by_file = {d["meta"]["file"]: d for d in read(local["0"] / "train/0.jsonl")}
    assert all(by_file[document["meta"]["file"]] == document for document in kept)
    fingerprints = {read_manifest(local[n] / "heldout").fingerprint for n in local}
    assert len(fingerprints) == 1


def is_noise(document: dict) -> bool:
    return document["meta"]["pile_set_name"] == "planted noise"


def test_noise_is_shuffled_words_of_training_documents_only(local):
    clean, noisy = (read(local[noise] / "train/0.jsonl") for noise in ("0", "0.3"))
    assert not any(
        is_noise(document) for document in [*clean, *read(local["0.3"] / "heldout/0.jsonl")]
    )
    assert len(clean) == len(noisy)
    noise_bytes, by_file = 0, {document["meta"]["file"]: document for document in clean}
    for after in noisy:
        if is_noise(after):
            before = by_file[after["meta"]["file"]]
            words = before["text"].split(), after["text"].split()
            assert words[0] != words[1] and sorted(words[0]) == sorted(words[1])
            assert re.split(r"\S+", before["text"]) == re.split(r"\S+", after["text"])
            noise_bytes += len(after["text"].encode())
    assert abs(sum(map(is_noise, noisy)) - 0.3 * len(noisy)) <= 1
    assert 0.25 < noise_bytes / sum(len(d["text"].encode()) for d in noisy) < 0.35


def test_junk_is_a_library_s_bytes_as_text(monkeypatch):
    few = sorted(local_text.libraries(), key=lambda path: path.stat().st_size)[:9]
    monkeypatch.setattr(local_text, "libraries", lambda: few)
    clean = [local_text.Document("s", "p", f"document {k}", "word " * 400) for k in range(40)]
    planted = local_text.plant(clean, 0.5, 3, "junk")
    junk = [document for document in planted if document.source == local_text.JUNK]
    assert len(junk) == 20 and planted == local_text.plant(clean, 0.5, 3, "junk")
    library = b"".join(path.read_bytes() for path in few)
    forms = Counter()
    for text in (document.text for document in junk):
        assert 400 * 5 / 3 - 2 < len(text) <= 400 * 5 / 3 + 1
        whole = text.rsplit("\n", 2)[0]  # without the last line, which is cut off
        if re.match(r"0{8}  ", text):
            form, data = "hex", bytes.fromhex("".join(x[10:] for x in whole.splitlines()))
        elif "," in text:
            form, data = "numbers", bytes(int(n) for n in re.findall(r"\d+", whole))
        else:
            form, data = "base64", base64.b64decode(whole)
        forms[form] += 1
        assert len(data) > 64 and data in library
    assert len(forms) == 3
    assert local_text.plant(clean, 0.5, 4, "junk") != planted


def test_planted_documents_are_spread_evenly():
    choice = random.Random(1)
    sizes = [choice.choice((200, 900, 9000)) for _ in range(300)]
    clean = [
        local_text.Document(f"s{k % 5}", "p", f"{k}", "some words " * (size // 11))
        for k, size in enumerate(sizes)
    ]
    assert local_text.plant(clean, 0.0, 3, "shuffle") == clean
    planted = local_text.plant(clean, 0.4, 3, "shuffle")
    texts = [d for d in planted if d.source != local_text.NOISE]
    assert texts == sorted(texts, key=lambda d: int(d.name))  # those that stay keep their order
    part = whole = 0
    for document in planted:
        whole += len(document.text)
        part += len(document.text) * (document.source == local_text.NOISE)
        assert abs(part - 0.4 * whole) < 9000 + 0.03 * whole


def test_training_and_held_out_text_share_no_package_and_no_text(local):
    train, heldout = (read(local["0"] / part / "0.jsonl") for part in ("train", "heldout"))
    assert {d["meta"]["pile_set_name"] for d in heldout} == set(local_text.SOURCES)
    packages = [{d["meta"]["package"] for d in part} for part in (train, heldout)]
    assert not packages[0] & packages[1]
    assert len({d["text"] for d in train + heldout}) == len(train) + len(heldout)


def test_local_again_is_done_and_other_settings_are_refused(local):
    base = local["0.3"].parents[1]
    words = [str(base), "--source", "local", *map(str, SIZES)]
    get_pile.main([*words, "--plant-noise", "0.3"])
    with pytest.raises(InputError, match="expected plant_noise 0.3, found plant_noise 0.1"):
        get_pile.main([*words, "--plant-noise", "0.1"])


def test_equal_long_short_and_binary_texts_are_left_out(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff" * 300)
    contents = ["a " * 150, "b " * 150, "a " * 150, "x", "c" * 16_385, tmp_path / "binary"]
    texts = [local_text.Document("s", f"p{n}", "name", text) for n, text in enumerate(contents)]
    found = local_text.take(texts, 1, 1_000_000, seen := set())
    assert sorted(document.text for document in found) == sorted(seen) == contents[:2]
    assert local_text.take(texts[:1], 1, 1_000_000, seen) == []  # nor on the other side


def test_files_belong_to_the_package_at_their_top():
    names = "pip/_vendor/requests/api.py scikit_learn-1.9.1.dist-info/METADATA six.py".split()
    found = [local_text.package_of(Path(name)) for name in names]
    assert found == ["pip", "scikit-learn", "six"]


# --- copies of the Pile's files -------------------------------------------------------------------


def pile(count: int, start: int = 0) -> list[dict]:
    sources = ("Github", "Pile-CC", "ArXiv")
    return [
        {"text": f"Document {n}. Straße\n" * (n % 5 + 1), "meta": {"pile_set_name": sources[n % 3]}}
        for n in range(start, start + count)
    ]


def lines(documents: list[dict]) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def write_copy(path: Path, documents: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.Table.from_pylist(documents)
        pyarrow.parquet.write_table(table, path, row_group_size=7)
        return
    data = lines(documents)
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":  # two frames, as written by parallel compressors
        data = zstandard.compress(data[:99]) + zstandard.compress(data[99:])
    path.write_bytes(data)


def get(base: Path, *flags: object) -> Path:
    base.mkdir(exist_ok=True)
    get_pile.main([str(base), *map(str, flags)])
    return base / "data/pile/train"


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet"])
def test_copies_of_every_format_give_the_same_lines(tmp_path, suffix):
    copy = tmp_path / "the copy"
    for number, start in ((2, 0), (10, 30), (11, 60)):  # 10 comes after 2
        write_copy(copy / f"train/{number}{suffix}", pile(30, start))
    write_copy(copy / f"val{suffix}", pile(5, 900))
    folder = get(tmp_path / "base", "--from", copy, "--documents-per-file", 40)
    assert [read(folder / f"{k}.jsonl") for k in range(3)] == [pile(40), pile(40, 40), pile(10, 80)]
    assert read_manifest(folder).counts["documents"] == 90
    assert not list(folder.glob("progress*")) and not (folder / "3.jsonl").exists()


def test_limit_and_compression(tmp_path):
    write_copy(tmp_path / "copy/0.jsonl", pile(50))
    folder = get(tmp_path, "--from", "copy", "--limit", 33, "--compress", "zstd")
    assert [p.name for p in text_files(folder)] == ["0.jsonl.zst"]
    assert list(Documents(text_files(folder))) == pile(33)
    with pytest.raises(InputError, match="another limit.*expected limit 33, found limit 34"):
        get(tmp_path, "--from", "copy", "--limit", 34, "--compress", "zstd")


KILLER = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from data_utils import atomic_files
from tests import programs
from tools import get_pile
programs.kill_at(atomic_files, "fsync", int(sys.argv.pop(1)))
get_pile.main(sys.argv[1:])
"""


def run_killed(number: int, when: str, *arguments: object, **environment: str) -> int:
    """Run get_pile, kill -9 before or after it gives a file its name for the number-th time."""
    # A file is fsynced, renamed, and then its folder fsynced.
    moment = 4 * (number - 1) + (1 if when == "before" else 2)
    command = [sys.executable, "-c", KILLER, str(CODE_ROOT), str(moment)]
    environment = {**os.environ, **environment}
    return subprocess.run([*command, *map(str, arguments)], env=environment, check=False).returncode


def test_killed_anywhere_and_started_again_gives_the_same_bytes(tmp_path):
    for number in range(3):
        write_copy(tmp_path / f"copy/{number}.jsonl.zst", pile(50, 50 * number))
    flags = ("--from", tmp_path / "copy", "--documents-per-file", 40)
    undisturbed = get(tmp_path / "undisturbed", *flags)
    base = tmp_path / "killed"
    base.mkdir()
    folder = base / "data/pile/train"
    # Names given in a run: settings.json, then K.jsonl and progress.json in turn, manifest.json.
    for number, when, finished in (
        (2, "before", []),  # in the first file's write
        (2, "after", ["0.jsonl"]),  # between file and progress
        (3, "after", ["0.jsonl"]),  # after the first progress
        (5, "before", ["0.jsonl", "1.jsonl", "2.jsonl"]),  # second file counted, third not
        (6, "before", ["0.jsonl", "1.jsonl", "2.jsonl", "3.jsonl"]),  # between data and manifest
    ):
        assert run_killed(number, when, base, *flags) == -signal.SIGKILL
        assert sorted(path.name for path in folder.glob("[0-9]*.jsonl")) == finished
        assert read_manifest(folder) is None
    get(base, *flags)
    assert files(folder) == files(undisturbed)
    assert read_manifest(folder).fingerprint == read_manifest(undisturbed).fingerprint


GOOD = lines(pile(2))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("0.jsonl", GOOD + b"{nonsense\n", r"line 3 is not JSON .* in .*0\.jsonl"),
        ("0.jsonl", GOOD + b'{"text": "\xff"}\n', r"line 3 is not UTF-8"),
        ("0.jsonl", GOOD + b'{"text": 7, "meta": {"pile_set_name": "a"}}\n', "line 3 has no text"),
        ("0.jsonl", GOOD + b'["text"]\n', "line 3 has no text"),
        ("0.jsonl", GOOD + b'{"text": "a"}\n', "line 3 has no source"),
        (
            "0.jsonl",
            GOOD + b'{"text": "a", "meta": {"pile_set_name": 1}}\n',
            "line 3 has a source .* not a string",
        ),
        (
            "0.jsonl.gz",
            gzip.compress(GOOD * 99)[:-20],
            r"cut off after line \d+ .* in .*0\.jsonl\.gz",
        ),
        ("0.jsonl.zst", zstandard.compress(GOOD * 99)[:-20], r"cut off after line \d+ .*\.zst"),
        ("0.jsonl.zst", zstandard.compress(GOOD) + b"rest", r"cut off after line 2 .*\.zst"),
        ("0.parquet", b"PAR1 no parquet", r"damaged or cut off after line 0 .* in .*0\.parquet"),
    ],
)
def test_bad_copies_are_errors_with_file_and_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        get(tmp_path / "base", "--from", tmp_path)
    assert caught.value.code == 2
    assert read_manifest(tmp_path / "base/data/pile/train") is None


def test_a_cut_off_zstd_file_is_found_wherever_it_was_cut(tmp_path):
    whole = zstandard.compress(os.urandom(300_000).hex().encode()) + zstandard.compress(b"\n" * 9)
    path = tmp_path / "0.jsonl.zst"
    for size in (len(whole) - 1, len(whole) - 14, len(whole) - 25, len(whole) // 2, 200, 3):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="line 1 is not JSON|cut off"):
            list(Documents([path]))


def test_wrong_flags(tmp_path):
    for flags, message in (
        (("--from", tmp_path / "nowhere"), "there are no .jsonl"),
        (("--plant-noise", "0.3"), "--plant-noise"),
        (("--source", "local", "--plant-noise", "1.5"), "--plant-noise"),
        (("--source", "local", "--from", tmp_path), "--from and --limit"),
        (("--limit", "-1"), "--limit"),
        (("--source", "nowhere"), "invalid choice"),
    ):
        with pytest.raises(InputError, match=message):
            get(tmp_path, *flags)
    with pytest.raises(InputError, match="BASE_PATH"):
        get_pile.main([str(tmp_path / "missing")])


# --- the hub --------------------------------------------------------------------------------------


def test_offline_is_said_before_anything_is_asked(tmp_path):
    with pytest.raises(EnvironmentFault, match="--from DIR"):  # conftest sets HF_HUB_OFFLINE
        get(tmp_path)


def test_the_hub_is_streamed_and_a_killed_run_goes_on(tmp_path):
    for number in range(3):
        write_copy(tmp_path / f"hub/train/{number:02}.jsonl.zst", pile(50, 50 * number))
    for name in ("val", "test"):
        write_copy(tmp_path / f"hub/{name}.jsonl.zst", pile(5, 900))
    base = tmp_path / "base"
    base.mkdir()
    flags = (base, "--documents-per-file", 40, "--limit", 140)
    with fake_hub.serve({REPOSITORY: tmp_path / "hub"}) as server:
        environment = fake_hub.variables(server.server_port, tmp_path)
        # settings.json, 0.jsonl, progress.json, 1.jsonl, progress.json: killed over 2.jsonl
        assert run_killed(6, "before", *flags, **environment) == -signal.SIGKILL
        server.asked.clear()
        make.run("tools/get_pile.py", *flags, **environment)
        first = [request for request in server.asked if request.endswith("/00.jsonl.zst")]
        assert len(first) <= 1  # a look at its columns; its documents are not read again
    folder = base / "data/pile/train"
    assert [read(folder / f"{k}.jsonl") for k in range(4)] == [
        pile(40, 40 * k) if k < 3 else pile(20, 120) for k in range(4)
    ]
    assert read_manifest(folder).content["revision"] == fake_hub.COMMIT
    get(*flags)  # done: asks nobody
