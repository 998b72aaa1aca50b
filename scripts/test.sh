#!/usr/bin/env bash
# Install what the tests need and run them: format, lint, shellcheck, pytest.
#   bash scripts/test.sh [--long] [pytest arguments ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash install.sh requirements-dev.txt
PATH=$PWD/.venv/bin:$PATH
selection="not long"
if [[ ${1:-} == --long ]]; then
  selection=""
  shift
fi
ruff format --check .
ruff check .
git ls-files -co --exclude-standard '*.sh' .ci/run | xargs shellcheck
# Three workers on two cores: tests of processes mostly wait. Long files come first.
python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "$selection" "$@"
