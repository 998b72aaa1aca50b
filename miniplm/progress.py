"""One progress line for a whole scoring job, whoever works on it.

Every worker leaves its speed in its claims (data_utils/blocks.py); the line adds them up.
"""

import datetime
import json
import sys
import time

from tqdm import tqdm

from cluster.place import local_rank
from data_utils.blocks import HEARTBEAT, Blocks


class Progress:
    """Measures this worker and shows the job: blocks done, speed of all workers, time left.

    flops: FLOPs a token of the model. peak: FLOP/s of this worker's device, None if unknown. Of
    several processes that one launcher started, the first one shows the line.
    """

    def __init__(
        self, blocks: Blocks, block_size: int, sequences: int, flops: float, peak: float | None
    ) -> None:
        self.blocks, self.block_size, self.sequences = blocks, block_size, sequences
        self.flops, self.peak = flops, peak
        self.tokens, self.seconds, self.last = 0.0, 0.0, time.monotonic()
        self.tokens_a_sequence, self.in_block = 0.0, 0
        self.others: list[dict] = []
        self.published, self.look_again = 0, 0.0
        self.bar = tqdm(
            total=sequences,
            desc=blocks.folder.name,
            bar_format="{desc}: {percentage:3.0f}%{postfix} |{bar:20}|",
            mininterval=1 if sys.stderr.isatty() else 30,
            disable=local_rank() != 0,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if not self.bar.disable:
            self._look()
            self.in_block = 0
            self._show(refresh=True)
        self.bar.close()

    def start_block(self, sequences: int, tokens: int) -> None:
        """A block of so many sequences and tokens is begun; older ones count half."""
        self.tokens_a_sequence = tokens / sequences
        self.tokens, self.seconds = self.tokens / 2, self.seconds / 2
        self.in_block, self.last = 0, time.monotonic()
        self.look_again = 0.0

    def add(self, sequences: int, tokens: int) -> None:
        """A batch is done."""
        now = time.monotonic()
        self.tokens, self.seconds = self.tokens + tokens, self.seconds + now - self.last
        self.last, self.in_block = now, self.in_block + sequences
        self.blocks.note = json.dumps({"tokens_per_second": self.speed, "peak": self.peak})
        if self.bar.disable:
            return
        if now >= self.look_again:
            self._look()
            # With thousands of blocks on a network file system a look may take long.
            self.look_again = now + max(HEARTBEAT, 50 * (time.monotonic() - now))
            self.last = time.monotonic()
        self._show()

    @property
    def speed(self) -> float:
        """Tokens a second of this worker."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def line(self) -> str:
        """The figures of the job as text."""
        workers = [{"tokens_per_second": self.speed, "peak": self.peak}, *self.others]
        speed = sum(worker["tokens_per_second"] for worker in workers)
        peaks = [worker["peak"] for worker in workers]
        parts = [f"{self.published:,}/{self.blocks.count:,} blocks", f"{speed:,.0f} tokens/s"]
        parts[-1] += f" of {len(workers)} worker{'s' * (len(workers) > 1)}"
        if speed > 0:
            tokens_left = (self.sequences - self._done()) * self.tokens_a_sequence
            parts.append(f"{datetime.timedelta(seconds=round(tokens_left / speed))} left")
        if None not in peaks:
            parts.append(f"{100 * speed * self.flops / sum(peaks):.0f} % of peak")
        return ", ".join(parts)

    def _done(self) -> int:
        return min(self.published * self.block_size + self.in_block, self.sequences)

    def _look(self) -> None:
        self.published = self.blocks.count - len(self.blocks.missing())
        self.others = [note for text in self.blocks.notes() if (note := parse_note(text))]

    def _show(self, refresh: bool = False) -> None:
        self.bar.set_postfix_str(self.line(), refresh=refresh)
        self.bar.update(self._done() - self.bar.n)


def parse_note(text: str) -> dict | None:
    """A worker's note; None for one that is empty yet or half written."""
    try:
        note = json.loads(text)
        return {key: note[key] for key in ("tokens_per_second", "peak")}
    except (ValueError, KeyError, TypeError):
        return None
