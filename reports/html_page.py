"""A page (reports/page.py) as one HTML file: pictures and style inside, no network, no scripts.

Everything that comes from data is escaped. Equal pages give equal bytes.
"""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports.page import Page, visible

FILTERS = {
    "seen": visible,
    "kind": lambda block: type(block).__name__,
    "base64": lambda png: base64.b64encode(png).decode(),
}


def render(page: Page) -> str:
    """The whole HTML document."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= FILTERS
    return environment.get_template("page.html").render(page=page)
