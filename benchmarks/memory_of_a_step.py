"""Bytes that a training step of the 1.2B model holds on a card, by counting tensors on a CPU.

    .venv/bin/python benchmarks/memory_of_a_step.py [--layers 1] [--zero-stage 1] [--config FILE]

Two parts, because the whole model does not fit here. The real engine (DeepSpeed's ZeRO, our loss)
takes a step of --layers layers in bf16, which has fp16's sizes: its bytes per parameter. The whole
trunk's activations, --micro-batch rows of 1,024 tokens, come from fake tensors, with and without
gradient checkpointing. Every storage counts from its making to its end; what an allocator adds is
left out. AdamW is the fused one, as on a GPU.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import argparse
import json
import tempfile
import weakref

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cluster.processes import start_processes
from data_utils.program import CODE_ROOT
from pretrain.engine import Engine
from pretrain.models import count_parameters, new_model, save_memory
from pretrain.objective import Context
from pretrain.objectives.language_modelling import Objective
from pretrain.settings import TrainSettings

CONFIG = "configs/models/qwen/1.2B.json"
LENGTH, ACCUMULATION = 1025, 2


class Count(TorchDispatchMode):
    """Counts the bytes of all living storages that operations have made."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.see(tensor.untyped_storage())
        return result

    def see(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it ends."""
        key = storage._cdata
        if key not in self.known:
            self.known.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.end, key, storage.nbytes())

    def end(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size

    def phase(self) -> int:
        """The peak since the last call."""
        peak, self.peak = self.peak, self.now
        return peak


class FusedAdamW(torch.optim.AdamW):
    """The engine uses the fused one on a GPU only."""

    def __init__(self, parameters, *, fused: bool, **adam) -> None:
        super().__init__(parameters, fused=True, **adam)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--layers", type=int, default=1, help="of the engine's model")
    parser.add_argument("--vocab", type=int, default=256, help="of the engine's model")
    parser.add_argument("--zero-stage", type=int, default=1)
    parser.add_argument("--micro-batch", type=int, default=1, help="of both parts")
    parser.add_argument("--grad-checkpoint", action="store_true", help="of the engine's model")
    parser.add_argument("--config", default=CONFIG, help="another model than the 1.2B one")
    options = parser.parse_args()
    config = json.loads((CODE_ROOT / options.config).read_text(encoding="utf-8"))
    for checkpointed in (False, True):
        held, peak = trunk(config, options.micro_batch, checkpointed)
        print(json.dumps({"checkpointed": checkpointed, "forward": held, "with_gradients": peak}))
    print(json.dumps(measure(config, options)))


def trunk(config: dict, micro_batch: int, checkpointed: bool) -> tuple[int, int]:
    """Bytes beside the weights after the whole trunk's forward pass, and the most to the end."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**config)
    with FakeTensorMode(), Count() as count:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).train()
        if checkpointed:
            save_memory(model)
        tokens, weights = torch.randint(0, 1000, (micro_batch, LENGTH - 1)), count.now
        count.phase()
        hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        held = count.now - weights
        hidden.sum().backward()
        return held, count.phase() - weights


def measure(config: dict, options: argparse.Namespace) -> dict[str, int]:
    """Parameters, and the most bytes held while idle, in the micro-batches and in the update."""
    ids = {"eos_token_id": 0, "pad_token_id": 0, "bos_token_id": None}
    config = config | {"num_hidden_layers": options.layers, "vocab_size": options.vocab, **ids}
    torch.optim.AdamW = FusedAdamW
    with tempfile.TemporaryDirectory() as folder, Count() as count:
        path = Path(folder) / "model.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        model = new_model(path, 0, "sdpa").train()
        if options.grad_checkpoint:
            save_memory(model)
        settings = TrainSettings(
            zero_stage=options.zero_stage,
            precision="bf16",
            micro_batch=options.micro_batch,
            global_batch=options.micro_batch * ACCUMULATION,
        )
        context = Context(settings, start_processes(60), settings.plan(1), None, 0)
        engine = Engine(model, Objective(model, context).loss, context, converted=False)
        size = (options.micro_batch, LENGTH)
        batch = {"tokens": torch.randint(1, options.vocab, size)}
        batch["lengths"] = torch.full((options.micro_batch,), LENGTH)
        for _ in range(2):  # the first step makes the optimiser's states
            idle = count.now
            count.phase()
            for number in range(ACCUMULATION):
                if number:
                    engine.next_micro_batch()
                engine.micro_step(batch)
            backward = count.phase()
            engine.update(1e-4)
            update = count.phase()
    return {
        "parameters": count_parameters(model),
        "idle": idle,
        "forward_backward": backward,
        "update": update,
    }


if __name__ == "__main__":
    main()
