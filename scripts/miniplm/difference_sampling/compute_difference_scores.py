"""Join teacher and reference scores into difference scores (miniplm/difference.py), then report.

    python3 scripts/miniplm/difference_sampling/compute_difference_scores.py BASE_PATH [--ratio 0.5]

--ratio: the share that the report (reports/selection_report.py) shows as selected. --criterion
draws a second one, of what another criterion keeps of the same sequences. Scores that are there
already are not computed again.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from data_utils.program import run, use_project_python

    use_project_python()

from dataclasses import dataclass, replace

from data_utils.flags import parse
from data_utils.names import flags_of_variables
from miniplm import difference
from reports import selection_report


@dataclass
class Settings(difference.Settings, selection_report.Settings):
    """Join the scores of teacher and reference, and report what they would select."""


def main() -> None:
    argv = sys.argv[1:]
    argv += flags_of_variables(Settings, argv)
    settings = parse(Settings, argv, positional="base_path")
    difference.compute(settings)
    selection_report.draw_report(replace(settings, criterion="difference", score_file=""))
    if settings.criterion != "difference":
        selection_report.draw_report(settings)


if __name__ == "__main__":
    run(main)
