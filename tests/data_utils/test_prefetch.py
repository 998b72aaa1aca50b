"""What is worked on ahead: how much of it, in which order, and how it fails.

.venv/bin/python -m pytest tests/data_utils/test_prefetch.py
"""

import threading

import pytest

from data_utils.prefetch import in_thread

COUNT = 2


def test_the_next_items_are_worked_on_while_one_is_used():
    started = [threading.Event() for _ in range(10)]
    coming = in_thread(lambda n: started[n].set() or n, range(10), COUNT)
    assert next(coming) == 0
    for number in range(COUNT + 1):
        assert started[number].wait(10)  # without anyone asking for them
    assert not started[COUNT + 1].is_set()
    assert list(coming) == list(range(1, 10))


def test_what_fails_ahead_fails_in_its_turn_and_no_thread_is_left():
    before = threading.active_count()
    coming = in_thread(lambda n: 1 // (3 - n), range(9), COUNT)
    assert [next(coming) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(coming)
    early = in_thread(str, range(9), COUNT)
    next(early)
    early.close()
    assert threading.active_count() == before


def test_what_is_not_begun_is_dropped_when_the_taker_stops():
    begun, release, done = threading.Event(), threading.Event(), []

    def work(number: int) -> None:
        if number == 1:
            begun.set()
            release.wait(10)
        done.append(number)

    early = in_thread(work, range(9), COUNT)
    next(early)
    assert begun.wait(10)
    threading.Timer(0.2, release.set).start()
    early.close()
    assert done == [0, 1]
