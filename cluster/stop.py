"""A signal that asks a program to end, answered at a moment of the program's own choosing."""

import contextlib
import signal
from collections.abc import Iterator

from cluster.place import STOP_SIGNALS


class Stop:
    """Remembers the first signal in `received` (0: none); later ones would cut off cleaning up.

    A program that looks at `received` finishes its step first. With at_once, a signal raises
    KeyboardInterrupt where it comes, except inside deferred(), where only check() does: in the
    middle of a batch an exception could come up in another thread's or a destructor's code and be
    lost there.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.received, self._at_once = 0, at_once
        for number in STOP_SIGNALS:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: object) -> None:
        first, self.received = not self.received, self.received or number
        if first and self._at_once:
            self.check()

    def check(self) -> None:
        """Leave if a signal has come; also where a library has swallowed the exception."""
        if self.received:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, only check() ends the program; it is called at both ends."""
        self.check()
        self._at_once, before = False, self._at_once
        try:
            yield
        finally:
            self._at_once = before
        self.check()
