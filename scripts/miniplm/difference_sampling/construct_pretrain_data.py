"""Select the refined pre-training corpus by difference scores (miniplm/selection.py).

python3 scripts/miniplm/difference_sampling/construct_pretrain_data.py BASE_PATH [RATIO=0.5]
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from data_utils.program import run, use_project_python

    use_project_python()
    from data_utils.names import flags_of_variables
    from miniplm.selection import Settings, main

    sys.argv += flags_of_variables(Settings, sys.argv[1:])
    run(main)
