"""Work done ahead of its consumer, on a bounded number of items."""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item, Done = TypeVar("Item"), TypeVar("Done")


def ahead(
    start: Callable[[Item], Future[Done]], items: Iterable[Item], count: int
) -> Iterator[Done]:
    """Results of start(item) in the order of the items; at most `count` more are in progress."""
    coming: deque[Future[Done]] = deque()
    for item in items:
        coming.append(start(item))
        if len(coming) > count:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def in_thread(work: Callable[[Item], Done], items: Iterable[Item], count: int) -> Iterator[Done]:
    """work(item) of each item in order, done by a thread that is at most `count` items ahead."""
    thread = ThreadPoolExecutor(1)
    try:
        yield from ahead(functools.partial(thread.submit, work), items, count)
    finally:
        thread.shutdown(cancel_futures=True)
