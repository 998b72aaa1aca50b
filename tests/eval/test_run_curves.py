"""eval/run_curves.py: where a run reaches a loss, and what its points cost."""

import numpy as np
import pytest

from data_utils.errors import InputError
from eval import run_curves
from eval.run_curves import Curve, read_curve
from tests.eval.test_scaling_law import plain, save_run


def curve(losses: list[float]) -> Curve:
    x = np.arange(1, len(losses) + 1, dtype=float)
    return Curve(np.array(losses), 10 * x, x, x, x)


@pytest.mark.parametrize(
    "loss, steps",
    [(5.0, 10), (6.0, 10), (4.5, 15), (4.0, 20), (3.9, 36), (3.0, float("nan"))],
)
def test_where_a_loss_is_reached_first(loss, steps):
    """Between two points linearly; what rises again afterwards does not count."""
    found = curve([5.0, 4.0, 4.2, 3.7]).reaches(loss, "steps")
    assert found == pytest.approx(steps, nan_ok=True)


def test_points_and_their_cost(tmp_path):
    save_run(tmp_path, "vanilla_kd", "qwen/200M", plain, teacher=2e9, steps=5)
    folder = tmp_path / "results/vanilla_kd/qwen/200M"
    found = read_curve(folder, before=1e15, from_step=2)
    assert found.steps.tolist() == [2, 3, 4, 5, 6]
    tokens = [int(1e9 * 1.25**k) for k in range(5)]
    assert found.tokens.tolist() == tokens
    assert found.student_flops == pytest.approx([1.26e9 * t for t in tokens])
    assert found.flops == pytest.approx([1e15 + 3.26e9 * t for t in tokens])
    picture = run_curves.draw({"a run": found, "_other": found})
    assert picture.startswith(b"\x89PNG")
    with pytest.raises(InputError, match="no held-out losses"):
        read_curve(folder, from_step=7)
