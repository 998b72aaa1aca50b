"""Ranks that are stopped by different signals agree on one of them.

.venv/bin/python -m pytest tests/cluster/test_stop_signals.py
"""

import signal

import pytest

from cluster.place import STOP_SIGNALS
from pretrain.steps import largest_signal

INT, TERM, USR1, QUIT = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGQUIT


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([0, 0], 0),
        ([INT, TERM], TERM),
        ([TERM, USR1], TERM),
        ([TERM, QUIT], TERM),
        ([USR1, 0, USR1], USR1),
    ],
)
def test_the_largest_of_all_ranks_is_taken(ranks, expected):
    asked = [float(sum(rank == number for rank in ranks)) for number in STOP_SIGNALS]
    assert largest_signal(asked) == expected
