"""Pages in a real browser: they fit a phone, their pictures load, and they can be printed."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from reports import html_page
from reports.page import Column, Example, Findings, Heading, Page, Picture, Table, Text, decimal
from reports.plots import new_plot, png

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# In the page: what a phone would show. In the frame around it: the same words, to be dumped.
PROBE = """<script>addEventListener("load", () => parent.postMessage({
  wide: document.documentElement.scrollWidth,
  broken: [...document.images].filter(image => !image.naturalWidth).length}, "*"))</script>"""
FRAME = """<iframe src="page.html" width="390" height="800" style="border:0"></iframe>
<script>
addEventListener("message", event => document.title = JSON.stringify(event.data))
</script>"""


@pytest.fixture
def page() -> str:
    figure, axes = new_plot(9, 4)
    axes.plot(np.arange(9))
    columns = [Column("name", "name"), *(Column(str(k), f"column {k}", decimal) for k in range(12))]
    row = {"name": "a_rather_long_name_without_a_space" * 2, **{str(k): k / 7 for k in range(12)}}
    blocks = [
        Findings(["student is ahead of control: its held-out loss is 0.100 lower."]),
        Heading("Tables"),
        Table([row] * 40, columns, "a/very/long/path/" * 9),
        Picture(png(figure), "Held-out loss."),
        Text("A caveat. " * 40, "note"),
        Example("A row", "source", "x" * 3000 + "\n\ttext", True),
    ]
    return html_page.render(Page("A page <of> everything", blocks))


def browse(*words: object) -> str:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--allow-file-access-from-files", "--virtual-time-budget=5000"]
    done = subprocess.run([*command, *map(str, words)], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_a_page_fits_a_phone_and_can_be_printed(page, tmp_path: Path):
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{PROBE}</body>"))
    (tmp_path / "frame.html").write_text(FRAME)
    dumped = browse("--dump-dom", (tmp_path / "frame.html").as_uri())
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dumped)[1]))
    assert found["wide"] <= 390 and found["broken"] == 0, found
    browse(f"--print-to-pdf={tmp_path / 'page.pdf'}", (tmp_path / "page.html").as_uri())
    printed = (tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") >= 2
