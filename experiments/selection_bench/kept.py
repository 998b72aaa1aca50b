"""What the selections of the bench keep of each source."""

from pathlib import Path

import numpy as np

from data_utils.corpus import Corpus
from data_utils.flags import under
from experiments.planted_noise.plant import PLANTED
from experiments.selection_bench.bench import Bench, Student


def by_source(base: Path, student: Student, settings: Bench) -> tuple[list, np.ndarray]:
    """(names of the sources, rows of each in the mixture and in the selection [2, sources])."""
    mixture = Corpus(under(base, settings.mixture(student.condition)))
    selection = Corpus(under(base, str(student.data / settings.corpus)))
    counts = [
        np.bincount(c.side("domain", np.arange(len(c))), minlength=len(mixture.domains))
        for c in (mixture, selection)
    ]
    return mixture.domains, np.array(counts)


def plants(base: Path, student: Student, settings: Bench) -> tuple[int, int, int]:
    """(planted rows that are kept, planted rows, rows that are kept)."""
    names, (there, kept) = by_source(base, student, settings)
    planted = np.isin(names, PLANTED)
    return int(kept[planted].sum()), int(there[planted].sum()), int(kept.sum())


def keep_rows(base: Path, condition: str, settings: Bench) -> list[dict]:
    """A row of each criterion: the share of each source that it keeps, the mean of the seeds."""
    rows = []
    for criterion in settings.criteria:
        students = settings.cell(condition, criterion)
        counts = [by_source(base, student, settings) for student in students]
        names, total = counts[0][0], np.sum([count for _, count in counts], axis=0)
        row = {"condition": condition, "criterion": criterion}
        rates = zip(names, *total, strict=True)
        row |= {name: kept / there if there else np.nan for name, there, kept in rates}
        rows.append(row)
    return rows
