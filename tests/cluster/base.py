"""Make a BASE_PATH for the scripts of this folder, or compare two runs.

python3 tests/cluster/base.py make FOLDER
python3 tests/cluster/base.py same RUN UNDISTURBED_RUN
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])


def main() -> None:
    from tests import make
    from tests.pretrain.runs import VOCAB, make_base, same_run

    word, *paths = sys.argv[1:]
    if word == "make":
        base = make_base(Path(paths[0]))
        make.save_model(base / "scorer", make.qwen_config(VOCAB), 1, base / "tokenizer")
    else:
        same_run(*map(Path, paths))


if __name__ == "__main__":
    main()
