"""Continuing prompts: transformers' own generate against pretrain/generation.py.

    .venv/bin/python benchmarks/bench_generate.py [--hidden 384] [--layers 4] [--runs 5]

Both sample 32 tokens behind 4 prompts of 768 tokens at temperature 1 from all 151,936 ids, with the
same random Qwen2 model; `prompt` is the time of the first token, `tokens` that of the others.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import use_project_python

    use_project_python()

import time

import torch
from torch import nn

from benchmarks import harness
from pretrain.generation import continue_prompts
from pretrain.models import new_model

ROWS, PROMPT, NEW, VOCAB = 4, 768, 32, 151_936


def main() -> None:
    options = harness.options(__doc__, hidden=384, layers=4, config="")
    if options.side:
        measure(options.side, Path(options.config))
        return
    harness.compare_steps("generate", __file__, options)


def measure(side: str, config: Path) -> None:
    """One token, then all of them, so that the prompt's time can be taken off."""
    model = new_model(config, 0, "sdpa").eval()
    prompts = torch.randint(0, VOCAB, (ROWS, PROMPT), generator=torch.Generator().manual_seed(0))
    sample = {harness.OBVIOUS: obvious, harness.OURS: ours}[side]
    seconds = []
    for new_tokens in (1, NEW):
        start = time.perf_counter()
        shape = tuple(sample(model, prompts, new_tokens).shape)
        seconds.append(time.perf_counter() - start)
    parts = {"prompt": seconds[0], "tokens": seconds[1] - seconds[0]}
    harness.report(seconds[1], f"{shape[0]} rows of {shape[1]} tokens", parts=parts)


def obvious(model: nn.Module, prompts: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """transformers' generate, which would stop at an end-of-text and take 50 ids by default."""
    return model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=new_tokens,
        do_sample=True,
        top_k=0,
        eos_token_id=None,
        pad_token_id=0,
    )


def ours(model: nn.Module, prompts: torch.Tensor, new_tokens: int) -> torch.Tensor:
    """Noise by place, buffers in place of a growing cache."""
    return continue_prompts(model, prompts, new_tokens, torch.arange(ROWS), 0)


if __name__ == "__main__":
    main()
