"""What only a GPU can show: half precision, its resumption, and scores that agree with a CPU's.

.venv/bin/python -m pytest tests/pretrain/test_gpu.py
"""

import numpy as np
import pytest
import torch

from miniplm.scores import Scores
from pretrain.losses import label_log_probs, weighted_cross_entropy
from tests import make
from tests.pretrain import runs
from tests.pretrain.test_losses import close, full_logits, random_case

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = runs.make_base(tmp_path_factory.mktemp("base path"))
    make.save_model(base / "teacher", make.qwen_config(runs.VOCAB), 1, base / "tokenizer")
    return base


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_chunked_loss_equals_full_logits(dtype):
    case = random_case(n=300, width=64, vocab=5003, dtype=dtype)
    on_gpu = [t.detach().cuda() for t in case]
    for t in on_gpu[:2]:
        t.requires_grad_()
    loss = weighted_cross_entropy(*on_gpu, rows=64)
    loss.backward()
    expected = full_logits(*case)
    for found, right in zip((loss, on_gpu[0].grad, on_gpu[1].grad), expected, strict=True):
        close(found.detach().cpu(), right, TOLERANCE[dtype])


def test_log_probabilities_equal_full_logits():
    hidden, head, labels, _ = random_case(n=300, width=64, vocab=5003)
    found = label_log_probs(hidden.detach().cuda(), head.detach().cuda(), labels.cuda(), rows=64)
    each = (hidden.double() @ head.double().T).log_softmax(1).gather(1, labels[:, None])
    close(found.cpu(), each.squeeze(1).detach(), 1e-5)


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp32"])
def test_a_run_learns_and_resumes_bit_for_bit(base, precision):
    half = {"PRECISION": precision, "NPROC": 1}
    runs.train(base, f"whole {precision}", **half)
    runs.train(base, f"parts {precision}", STOP_STEP=4, **half)
    runs.train(base, f"parts {precision}", **half)
    whole, parts = (
        runs.column(base / f"{kind} {precision}", "loss") for kind in ("whole", "parts")
    )
    assert whole == parts
    assert whole[-1] < whole[0] - 0.5


def test_scores_agree_with_those_of_a_cpu(base):
    flags = ["--model-path", "teacher", "--data-dir", "corpus", "--precision", "fp32"]
    make.run("miniplm/score.py", base, *flags, "--save", "gpu")
    make.run("miniplm/score.py", base, *flags, "--save", "cpu", CUDA_VISIBLE_DEVICES="")
    (gpu, counts), (cpu, same) = (Scores(base / name, "").means() for name in ("gpu", "cpu"))
    assert np.array_equal(counts, same)
    assert np.allclose(gpu, cpu, rtol=1e-4, atol=1e-4, equal_nan=True)
