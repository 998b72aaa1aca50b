"""Story Cloze from the CSV files that its owners hand out on request.

See cs.rochester.edu/nlp/rocstories.

The data set library runs no scripts any more, so that lm-eval's own task cannot load it. The files
are looked for in STORYCLOZE_DIR under the owners' names, e.g.
cloze_test_val__winter2018-cloze_test_ALL_val - 1 - 1.csv.
"""

import os
from pathlib import Path

import datasets


def load_2016(**_: object) -> datasets.DatasetDict:
    """The validation and test splits of spring 2016."""
    return load("2016", validation="cloze_test_val_*2016*.csv", test="cloze_test_test_*2016*.csv")


def load_2018(**_: object) -> datasets.DatasetDict:
    """The validation split of winter 2018; its test split has no answers."""
    return load("2018", validation="cloze_test_val_*2018*.csv")


def load(year: str, **patterns: str) -> datasets.DatasetDict:
    """Splits by name; FileNotFoundError unless there is one file for each."""
    folder = Path(os.environ.get("STORYCLOZE_DIR") or ".")
    files = {}
    for split, pattern in patterns.items():
        found = sorted(folder.glob(pattern))
        if len(found) != 1:
            raise FileNotFoundError(
                f"expected one file {pattern} of Story Cloze {year} in {folder} (STORYCLOZE_DIR), "
                f"found {len(found)}"
            )
        files[split] = str(found[0])
    return datasets.load_dataset("csv", data_files=files)
