"""The scoring's progress line adds up what all workers say; FLOPs against torch's own counter."""

import json
import os

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from data_utils.blocks import Blocks
from miniplm.progress import Progress, parse_note
from pretrain.flops import forward_flops, peak_flops
from pretrain.models import hidden_states
from tests import make
from tests.pretrain.test_log_probs import CONFIGS, random_model


def worker(folder, block: int, speed: float, peak: float | None = None) -> Blocks:
    """Another worker that holds the claim of a block."""
    blocks = Blocks(folder, 10, ".x", note=json.dumps({"tokens_per_second": speed, "peak": peak}))
    assert blocks._claim(block)
    return blocks


def mine(folder, peak: float | None = None) -> Progress:
    """This worker: half of a block of 100 sequences and 1,000 tokens done in 5 seconds."""
    progress = Progress(Blocks(folder, 10, ".x"), 100, 950, flops=2e9, peak=peak)
    for block in (0, 1):
        progress.blocks.publish(block, lambda path: path.touch())
    progress.start_block(100, 1000)
    progress.last -= 5
    progress.add(50, 500)
    return progress


def test_the_line_is_of_the_whole_job(tmp_path):
    progress = mine(tmp_path, peak=1e12)
    assert json.loads(progress.blocks.note)["tokens_per_second"] == pytest.approx(100, rel=0.01)
    worker(tmp_path, 4, 300, peak=1e12)
    dead = worker(tmp_path, 5, 5000, peak=1e12)
    os.utime(dead.held, (1, 1))
    (tmp_path / ".claim_000006").touch()  # one that has not said anything yet
    progress._look()
    # 700 of 950 sequences left, 10 tokens each, at 400 a second
    line = progress.line()
    assert line.startswith("2/10 blocks, 400 tokens/s of 2 workers, 0:00:1")
    assert line.endswith("left, 40 % of peak")  # 400 x 2e9 of 2 x 1e12
    assert progress._done() == 250
    assert "0:00:17 left" in line or "0:00:18 left" in line  # 700 of them at 10 / 400 s


def test_no_utilisation_where_a_peak_is_unknown(tmp_path):
    progress = mine(tmp_path, peak=1e12)
    worker(tmp_path, 4, 300, peak=None)
    progress._look()
    assert "peak" not in progress.line()
    assert "peak" not in mine(tmp_path / "..").line()


@pytest.mark.parametrize("text", ["", "{", "[]", "1", '{"tokens_per_second": 1}'])
def test_a_torn_note_says_nothing(text):
    assert parse_note(text) is None


@pytest.mark.parametrize("family", CONFIGS)
def test_flops_equal_those_counted(family):
    model, length = random_model(CONFIGS[family]), 64
    if family != "mamba":
        model.set_attn_implementation("eager")  # the counter does not see the fused one on a CPU
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hidden_states(model, torch.zeros(1, length, dtype=torch.int64))
    config = model.config
    counted = counter.get_total_flops() / length + 2 * config.hidden_size * config.vocab_size
    if family == "mamba":  # its convolution and scan are no matrix products, its A_log is none
        assert forward_flops(model, length) == pytest.approx(counted, rel=0.1)
        return
    # The counter takes all pairs of positions, a causal model looks at half of them.
    counted -= 2 * config.num_hidden_layers * config.hidden_size * length
    assert forward_flops(model, length) == pytest.approx(counted, rel=0.01)


def test_peaks_by_name():
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "fp16") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "fp32") == 19.5e12
    assert peak_flops("Tesla V100-SXM2-16GB", "fp16") == 125e12
    assert peak_flops("CPU", "fp32") is None and peak_flops("NVIDIA L400", "fp16") is None


def test_the_quickstarts_tiny_model_by_hand():
    """2 x (weights of all matrices and norms, the tied embedding once) + attention."""
    model = random_model(make.qwen_config(600))
    weights = sum(p.numel() for p in model.parameters())
    assert forward_flops(model, 10) == 2 * weights + 2 * 2 * 32 * 10
