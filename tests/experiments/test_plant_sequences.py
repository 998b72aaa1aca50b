"""plant.py: which rows change, into what, under which name, and what it refuses.

.venv/bin/python -m pytest tests/experiments/test_plant_sequences.py
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_utils import artefact
from data_utils.corpus import Corpus
from data_utils.errors import InputError
from data_utils.shards import token_type, write_shard
from experiments.planted_noise import plant
from experiments.planted_noise.plant import BOILERPLATE, JUNK, NOISE, Settings, draw, shuffled
from tests import make

PROGRAM = "experiments/planted_noise/plant.py"
EOS = 0
NAMES = ("noise", "boilerplate", "junk")


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer_folder) -> Path:
    """A BASE_PATH with a corpus of shards of 40, 40 and 13 rows of random ids."""
    base = tmp_path_factory.mktemp("with space")
    rows = make.random_rows(93, 600, EOS, longest=30)
    make.save_corpus(base / "clean", rows, tokenizer_folder, max_length=30, shard_size=40)
    return base


def planted(base: Path, save: str, *flags: object) -> Corpus:
    """The corpus that the program writes."""
    names = ["--data-dir", "clean", "--save", save, "--boilerplate-source", "B"]
    words = [str(word) for word in (base, *names, *flags)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [PROGRAM, *words])
        plant.main()
    return Corpus(base / save)


def rows_of(corpus: Corpus) -> list[list[int]]:
    return [corpus.row(row).tolist() for row in range(len(corpus))]


def sources_of(corpus: Corpus) -> list[str]:
    return [corpus.domains[number] for number in corpus.side("domain", np.arange(len(corpus)))]


def test_planted_rows_and_all_others(base):
    clean = Corpus(base / "clean")
    corpus = planted(base, "both", "--noise", 0.29, "--boilerplate", 0.1)
    before, after = rows_of(clean), rows_of(corpus)
    sources = sources_of(corpus)
    copies = {tuple(after[row]) for row, source in enumerate(sources) if source == BOILERPLATE}
    longest = max((row for row in range(1, 93, 2)), key=lambda row: (len(before[row]), -row))
    assert copies == {tuple(before[longest])}
    assert corpus.manifest.inputs["corpus"]["fingerprint"] == clean.identity["fingerprint"]
    moved = 0
    for row, source in enumerate(sources):
        if source == NOISE:
            assert sorted(after[row]) == sorted(before[row])
            assert [i for i, t in enumerate(after[row]) if t == EOS] == [
                i for i, t in enumerate(before[row]) if t == EOS
            ]
            moved += after[row] != before[row]
        elif source != BOILERPLATE:
            assert after[row] == before[row]
            assert source == "AB"[row % 2]
    assert moved > 20
    # 0.29 of 40, 40 and 13 rows, and a tenth of them, each rounded down.
    for name, expected in ((NOISE, [11, 11, 3]), (BOILERPLATE, [4, 4, 1])):
        found = [sources[start : start + 40].count(name) for start in (0, 40, 80)]
        assert found == expected
        assert corpus.manifest.counts[name] == sum(expected)


def test_the_seed_decides_and_a_larger_share_keeps_the_noise_of_a_smaller_one(base):
    again = {
        name: planted(base, name, "--noise", share, "--seed", seed)
        for name, share, seed in (("a", 0.5, 3), ("b", 0.5, 3), ("c", 0.5, 4), ("d", 0.1, 3))
    }
    files = [(base / name / "data_0.bin").read_bytes() for name in again]
    assert files[0] == files[1] != files[2]
    small, large = rows_of(again["d"]), rows_of(again["a"])
    noise = [row for row, source in enumerate(sources_of(again["d"])) if source == NOISE]
    assert noise and all(small[row] == large[row] for row in noise)
    assert all(sources_of(again["a"])[row] == NOISE for row in noise)


def test_junk_is_rows_of_another_corpus_each_once(base, tokenizer_folder):
    junk = make.random_rows(40, 600, EOS, seed=5, longest=30)
    make.save_corpus(base / "junk", junk, tokenizer_folder, max_length=30)
    flags = ["--noise", 0.2, "--junk", 0.4, "--junk-dir", "junk"]
    corpus = planted(base, "with junk", *flags)
    sources, rows = sources_of(corpus), rows_of(corpus)
    mine = [tuple(rows[row]) for row, source in enumerate(sources) if source == JUNK]
    # 0.4 of 40, 40 and 13 rows, each rounded down.
    assert corpus.manifest.counts[JUNK] == len(mine) == 16 + 16 + 5
    assert len(set(mine)) == len(mine) and set(mine) <= {tuple(row.tolist()) for row in junk}
    assert (
        corpus.manifest.inputs["junk"]["fingerprint"]
        == Corpus(base / "junk").identity["fingerprint"]
    )
    noise = planted(base, "noise alone", "--noise", 0.2)
    kept = [row for row, source in enumerate(sources_of(noise)) if source == NOISE]
    assert all(rows[row] == noise.row(row).tolist() for row in kept)
    with pytest.raises(InputError, match="not enough rows of junk"):
        planted(base, "too much", "--junk", 0.6, "--junk-dir", "junk")
    other = make.random_rows(40, 600, EOS, seed=5, longest=20)
    make.save_corpus(base / "other junk", other, tokenizer_folder, max_length=20)
    with pytest.raises(InputError, match="another max_length"):
        planted(base, "other", "--junk", 0.1, "--junk-dir", "other junk")


@settings(max_examples=50)
@given(st.integers(0, 300), st.integers(0, 100), st.data())
def test_drawn_rows_are_exact_shares_and_disjoint(count, percent, data):
    other = data.draw(st.integers(0, 100 - percent))
    third = data.draw(st.integers(0, 100 - percent - other))
    shares = (percent, other, third)
    found = draw(count, 0, Settings(**dict(zip(NAMES, np.array(shares) / 100, strict=True))))
    assert [len(rows) for rows in found] == [count * share // 100 for share in shares]
    every = np.concatenate(found).tolist()
    assert len(set(every)) == len(every) and all(0 <= row < count for row in every)


def test_a_beginning_of_sequence_token_stays():
    row = np.array([7, *range(100, 150), EOS, *range(150, 160)])
    for bos in (True, False):
        found = shuffled(row, EOS, bos, np.random.default_rng(0))
        assert (found[0] == 7) == bos and found[51] == EOS
        assert sorted(found) == sorted(row)


def test_nonsense_is_refused():
    nan = float("nan")
    for shares in ((1.5, 0, 0), (0, -0.1, 0), (0.7, 0.2, 0.2), (nan, 0, 0), (0, 0, nan)):
        with pytest.raises(ValueError, match="--noise, --boilerplate and --junk"):
            Settings(**dict(zip(NAMES, shares, strict=True)))
    with pytest.raises(ValueError, match="--seed"):
        Settings(seed=-1)


def test_wrong_corpora_and_sources_are_refused(base, tmp_path):
    planted(base, "once", "--noise", 0.1)
    with pytest.raises(InputError, match="planted .*once"):
        planted(base, "twice", "--data-dir", "once", "--noise", 0.1)
    with pytest.raises(InputError, match="'licences'"):
        planted(base, "x", "--boilerplate", 0.1, "--boilerplate-source", "licences")
    rows = make.random_rows(5, 600, EOS)
    (tmp_path / "bare-65").mkdir()
    write_shard(tmp_path / "bare-65/data_0", [len(row) for row in rows], rows, token_type(600))
    with pytest.raises(InputError, match="sources .*bare-65"):
        planted(base, "y", "--data-dir", tmp_path / "bare-65", "--noise", 0.1)


def test_run_again_it_changes_nothing_and_another_share_is_refused(base):
    planted(base, "again", "--noise", 0.1)
    before = (base / "again/manifest.json").stat().st_mtime_ns
    planted(base, "again", "--noise", 0.1)
    assert (base / "again/manifest.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="noise"):
        planted(base, "again", "--noise", 0.2)
    assert artefact.require(base / "again", "corpus", "", contents=True)
