"""Give a selection away: row numbers, 1 bit per row of the scored corpus, instead of its tokens.

    python3 tools/publish.py PATH --to FOLDER

PATH is a selected corpus. Whoever has the scored corpus makes the selected one again with
construct_pretrain_data.py BASE_PATH --from-rows FOLDER, byte for byte; another corpus is refused.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import dataclass

from data_utils.errors import InputError
from data_utils.flags import flag, parse
from data_utils.names import absolute
from miniplm import published_rows


@dataclass
class Settings:
    """Give a selection away."""

    path: str = flag("", "the selected corpus")
    to: str = flag("", "the folder to write; default: beside it, with -published in its name")


def main() -> None:
    settings = parse(Settings, positional="path")
    if not settings.path:
        raise InputError("no PATH given", fix="python3 tools/publish.py PATH")
    folder = absolute(settings.path)
    target = absolute(settings.to) if settings.to else folder.with_name(f"{folder.name}-published")
    about = published_rows.write(folder, target)
    size = (target / published_rows.ROWS).stat().st_size
    print(
        f"{target}: {about['counts']['sequences']:,} of {about['corpus']['rows']:,} rows, "
        f"{size:,} bytes"
    )


if __name__ == "__main__":
    run(main)
