"""A finished artefact that changed: readers take what its manifest lists, all of it and no more."""

import os
import shutil
import sys

import numpy as np
import pytest

from data_utils import artefact
from data_utils.artefact_writer import Output
from data_utils.corpus import Corpus
from data_utils.errors import ArtefactError
from data_utils.shards import write_shard
from miniplm.scores import Scores
from pretrain.models import load_model
from tests import make, programs
from tools import verify

# Files that a reader of this kind would take, beside the listed ones.
MORE = {
    "corpus": [
        *("data_9.bin", "data_9.idx", "test_0.idx", "data_01.bin", "domain_3.npy"),
        *("source_row_0.npy", "tokenizer/added_tokens.json", "tokenizer/deep/er.txt"),
    ],
    "scores": ["block_000009.safetensors", "difference.npy", "scores_0.pt"],
    "model": [
        *(
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "adapter_config.json",
        ),
        *("pytorch_model.bin", "pytorch_model.bin.index.json", "modeling_own.py", "merges.txt"),
        "generation_config.json",
    ],
    "text": ["1.jsonl", "1.jsonl.zst", "0.jsonl.gz", "part.parquet", "train/0.jsonl"],
}
# What is no reader's business: people's notes, our own records, other systems' files.
BESIDE = ["README.txt", "metrics.jsonl.bak", ".DS_Store", ".data_1.bin.tmp", "curves.png", ".nfs01"]
CASES = [(kind, name) for kind, names in MORE.items() for name in names]


def finished(kind, folder, tokenizer):
    """A finished artefact of the kind."""
    if kind == "corpus":
        return make.save_corpus(folder, make.random_rows(9, 600, 0), tokenizer, shard_size=5)
    if kind == "scores":
        corpus = finished("corpus", folder.parent / "corpus", tokenizer)
        return make.save_scores(folder, corpus, "m", [-1.0] * 5, [1] * 5)
    output = Output(folder, kind, "tests", {}, {}).begin()
    files = ["0.jsonl"] if kind == "text" else ["config.json", "model.safetensors"]
    for name in files:
        (folder / name).write_text("{}\n")
    output.finish(files, {})
    return folder


READ = {
    "corpus": Corpus,
    "scores": lambda folder: Scores(folder, "fix"),
    "model": lambda folder: load_model(folder, "fp32", "sdpa"),
    "text": lambda folder: artefact.identity(folder, "text", "fix"),
}


def put(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")


@pytest.mark.parametrize("kind, name", CASES)
def test_more_than_the_manifest_lists_is_refused_by_all(kind, name, tmp_path, tokenizer_folder):
    folder = finished(kind, tmp_path / kind, tokenizer_folder)
    for harmless in BESIDE:
        put(folder, harmless)
    if kind not in ("model", "text"):  # these stand for files of other kinds
        READ[kind](folder)
    manifest = artefact.read_manifest(folder)
    artefact.check_files(manifest, "fix", contents=True)
    put(folder, name)
    same = Output(folder, kind, manifest.made_by["program"], manifest.content, {})
    readers = [READ[kind], lambda place: artefact.identity(place, kind, "fix")]
    readers += [lambda place: same.begin()] if not manifest.inputs else []
    for read in readers:
        with pytest.raises(ArtefactError) as caught:
            read(folder)
        assert caught.value.code == 3 and str(folder / name) in str(caught.value)
    assert any(name in problem for problem in verify.check(folder, None))


@pytest.mark.parametrize("kind", ["corpus", "scores", "model", "text"])
@pytest.mark.parametrize("change", ["grown", "shrunk", "emptied", "missing", "a folder"])
def test_less_or_other_than_listed_is_refused(kind, change, tmp_path, tokenizer_folder):
    folder = finished(kind, tmp_path / kind, tokenizer_folder)
    for entry in artefact.read_manifest(folder).files:
        path, kept = folder / entry["name"], tmp_path / "kept"
        path.rename(kept)
        if change == "a folder":
            path.mkdir()
        elif change != "missing":
            data = kept.read_bytes()
            path.write_bytes({"grown": data + b"1", "shrunk": data[:-1], "emptied": b""}[change])
        with pytest.raises(ArtefactError, match=path.name) as caught:
            READ[kind](folder)
        assert caught.value.code == 3
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        kept.rename(path)
    artefact.check_files(artefact.read_manifest(folder), "fix", contents=True)


def test_a_shard_that_was_put_in_is_never_trained_on(tmp_path, tokenizer_folder):
    corpus = finished("corpus", tmp_path / "corpus", tokenizer_folder)
    write_shard(corpus / "data_2", [3], [np.array([1, 2, 3])], np.dtype("<u2"))
    (tmp_path / "model.json").write_text("{}")
    flags = programs.flags({"data_dir": "corpus", "model_config": "model.json", "save": "run"})
    run = programs.call(tmp_path, "pretrain.train", tmp_path, *flags)
    programs.one_message(run, 3, "data_2", "corpus")
    assert not (tmp_path / "run").exists()


def test_states_of_a_checkpoint_and_a_whole_run(tmp_path):
    """DeepSpeed takes what it finds in its folder; step folders are artefacts of their own."""
    run = tmp_path / "run"
    output = Output(run / "step_000005", "model", "tests", {}, {}).begin()
    for name in ("deepspeed/step/rank_0_states.pt", "model.safetensors", "trainer_state.json"):
        put(run / "step_000005", name)
    output.finish(
        ["deepspeed/step/rank_0_states.pt", "model.safetensors", "trainer_state.json"], {}
    )
    whole = Output(run, "model", "tests", {}, {})
    put(run, "model.safetensors")
    whole.finish(["model.safetensors"], {})
    for name in ("metrics.jsonl", "curves.png", "settings.json", "step_000005.tmp/model.bin"):
        put(run, name)
    for folder in (run, run / "step_000005"):
        artefact.require(folder, "model", "fix", contents=True)
    put(run / "step_000005", "deepspeed/step/rank_1_states.pt")
    artefact.require(run, "model", "fix")
    with pytest.raises(ArtefactError, match="rank_1_states"):
        artefact.require(run / "step_000005", "model", "fix")


def test_an_adopted_corpus_is_held_to_its_list_too(tmp_path, tokenizer_folder, monkeypatch):
    theirs = finished("corpus", tmp_path / "theirs-65", tokenizer_folder)
    make.disown(theirs)
    (theirs / "data_2.bin").touch()  # of no shard: by rule it is ignored
    assert len(Corpus(theirs)) == 9
    monkeypatch.setattr(sys, "argv", ["verify.py", "--adopt", str(theirs)])
    verify.main()
    assert len(Corpus(theirs)) == 9
    write_shard(theirs / "data_2", [3], [np.array([1, 2, 3])], np.dtype("<u2"))
    with pytest.raises(ArtefactError, match=r"data_2\.(bin|idx)"):
        Corpus(theirs)
    os.unlink(theirs / "data_2.idx")
    (theirs / "data_2.bin").write_bytes(b"")
    assert len(Corpus(theirs)) == 9
