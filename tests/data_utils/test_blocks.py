"""Elastic blocks: who may take one, whose result stays, and what a late worker may not break.

.venv/bin/python -m pytest tests/data_utils/test_blocks.py
"""

import os
import time

import pytest

from data_utils import blocks
from data_utils.blocks import Blocks


@pytest.fixture
def pair(tmp_path) -> tuple[Blocks, Blocks]:
    """Two workers on one job, of equal host name and process id."""
    return Blocks(tmp_path, 4), Blocks(tmp_path, 4)


def test_every_block_is_taken_once_and_no_claim_is_left(pair, tmp_path):
    taken = []
    for block in pair[0].take():
        taken.append(block)
        assert pair[1]._claim(block) is False and pair[1].held is None
        assert pair[0].publish(block, lambda path, b=block: path.write_text(str(b)))
    assert sorted(taken) == [0, 1, 2, 3]
    assert sorted(tmp_path.iterdir()) == [pair[0].path(block) for block in range(4)]
    assert list(pair[1].take()) == []


def test_the_first_one_stays_and_a_late_twin_is_discarded(pair, tmp_path):
    assert pair[0].worker != pair[1].worker
    assert pair[0].publish(2, lambda path: path.write_text("first"))
    assert not pair[1].publish(2, lambda path: path.write_text("late"))
    assert pair[0].path(2).read_text() == "first" and len(list(tmp_path.iterdir())) == 1


def test_a_twin_may_be_swept_away_while_it_writes(pair):
    """The finisher sweeps when all is published; a block that is missing still is an error."""

    def swept(path):
        path.write_text("late")
        pair[0].sweep()

    with pytest.raises(FileNotFoundError):
        pair[1].publish(0, swept)
    pair[0].publish(0, lambda path: path.write_text("first"))
    assert not pair[1].publish(0, swept)
    assert pair[0].path(0).read_text() == "first"


@pytest.mark.parametrize("age", [blocks.STALE + 5, -86_400])
def test_a_stale_claim_is_taken_over(pair, age):
    """Too old, or of a time to come: the clock was set back since."""
    assert pair[0]._claim(1) and not pair[1]._claim(1)
    claim = pair[0]._claim_path(1)
    when = time.time() - age
    os.utime(claim, (when, when))
    assert pair[1]._claim(1)
    assert not Blocks(pair[0].folder, 4)._claim(1)  # its time begins anew


def test_a_heartbeat_keeps_the_claim(pair, monkeypatch):
    monkeypatch.setattr(blocks, "HEARTBEAT", 0.01)
    taken = pair[0].take()
    claim = pair[0]._claim_path(next(taken))
    os.utime(claim, (0, 0))
    deadline = time.monotonic() + 20
    while claim.stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    taken.close()
    assert not claim.exists()
