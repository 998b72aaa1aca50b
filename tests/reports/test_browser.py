"""The report of the differences in a real browser, Debian's chromium, headless.

.venv/bin/python -m pytest tests/reports/test_browser.py
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests import make
from tests.reports.test_selection_report import Case

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access"]
# What the page looks like from inside, left in it as an attribute for the dump.
PROBE = """<script>
const all = (what) => [...document.querySelectorAll(what)];
window.onload = () => document.body.setAttribute("data-seen", JSON.stringify({
  pictures: all("img").map((i) => [i.complete, i.naturalWidth, i.getBoundingClientRect().width]),
  wide: all(".wide, pre, body").filter((e) => e.scrollWidth > e.clientWidth).length,
  bullets: all("ul.findings li").length,
  examples: all(".example pre").map((e) => e.textContent),
  loaded: performance.getEntriesByType("resource").map((e) => e.name),
}));
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, tokenizer_folder) -> Path:
    """The report of a corpus of real text."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    rows = make.text_rows(tokenizer_folder, 500)
    domains = np.arange(len(rows)) % 3
    case = Case(tmp_path_factory.mktemp("page"), rows, tokenizer_folder, domains, empty=(3, 5))
    return case.folder / "report.html"


def browse(*flags: object) -> subprocess.CompletedProcess:
    words = [CHROMIUM, *FLAGS, "--enable-logging=stderr", *map(str, flags)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)


def test_the_page_in_a_browser(page, tmp_path):
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text().replace("</body>", PROBE))
    found = browse("--window-size=1200,900", "--dump-dom", probed.as_uri())
    console = [line for line in found.stderr.splitlines() if "CONSOLE" in line]
    assert console == []
    seen = json.loads(html.unescape(re.search(r'data-seen="([^"]*)"', found.stdout)[1]))
    assert len(seen["pictures"]) == 3
    for complete, natural, shown in seen["pictures"]:
        assert complete and natural > 500 and 500 < shown <= 1080
    assert seen["wide"] == 0  # nothing is cut off or must be scrolled sideways
    assert seen["bullets"] >= 5
    assert len(seen["examples"]) == 12 and all(seen["examples"])
    assert all(name.startswith("data:") for name in seen["loaded"])  # nothing else is fetched
