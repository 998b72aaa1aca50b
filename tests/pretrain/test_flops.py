"""FLOPs of a model against torch's own counter, and the peaks of devices by their names."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pretrain.flops import forward_flops, peak_flops
from pretrain.models import hidden_states
from tests.pretrain.test_log_probs import CONFIGS, random_model


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
