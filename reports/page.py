"""A report as plain data: a page is a title and a list of blocks.

reports/html_page.py renders a page as one self-contained HTML file, reports/terminal.py as text.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Characters that are invisible or turn the text around them; line ends and tabs are fine.
HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Column(NamedTuple):
    """A table's column: key in its rows, title, and how a number is shown (None: as text)."""

    key: str
    title: str
    show: Callable[[float], str] | None = None

    def cell(self, row: dict) -> str:
        """The row's value as shown."""
        value = row[self.key]
        return self.show(value) if self.show and not isinstance(value, str) else str(value)


class Heading(NamedTuple):
    words: str


class Text(NamedTuple):
    """A paragraph; style: "" (plain), "note" (a caveat) or "from" (where something comes from)."""

    words: str
    style: str = ""


class Findings(NamedTuple):
    """The headline sentences."""

    sentences: Sequence[str]


class Table(NamedTuple):
    """source: the file that its figures are in."""

    rows: Sequence[dict]
    columns: Sequence[Column]
    source: str = ""


class Picture(NamedTuple):
    """A PNG; source: the file with the plotted numbers."""

    png: bytes
    caption: str
    source: str = ""


class Example(NamedTuple):
    """A decoded sequence that was kept or dropped."""

    title: str
    about: str
    text: str
    kept: bool


class Page(NamedTuple):
    title: str
    blocks: Sequence[NamedTuple]


def integer(value: float) -> str:
    """12,345"""
    return f"{int(value):,}"


def decimal(value: float) -> str:
    """1.234; a dash where there is no value."""
    return f"{value:.3f}" if value == value else "–"


def signed(value: float) -> str:
    """+1.234; a dash where there is no value."""
    return f"{value:+.3f}" if value == value else "–"


def scientific(value: float) -> str:
    """1.23e+21; a dash where there is no value."""
    return f"{value:.2e}" if value == value else "–"


def percent(value: float) -> str:
    """12.3 %; a dash where there is no value."""
    return f"{100 * value:.1f} %" if value == value else "–"


def visible(words: object) -> str:
    """The words with plain line ends; control and direction characters become replacement marks."""
    return HIDDEN.sub("\ufffd", str(words).replace("\r\n", "\n"))
