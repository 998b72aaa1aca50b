#!/usr/bin/env bash
# Install the requirements into .venv; safe to run again.
#   bash install.sh [requirements-dev.txt]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

requirements=${1:-requirements.txt}
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "ERROR $python is $("$python" --version 2>&1): expected Python 3.11 or newer." \
    "Fix: PYTHON=/path/to/python3.11 bash install.sh" >&2
  exit 4
fi
if [[ ! -x .venv/bin/python ]] && ! "$python" -m venv .venv; then
  rm -rf .venv
  echo "ERROR this Python cannot make virtual environments. Fix: apt-get install python3-venv" >&2
  exit 4
fi

# A hash of the requirements is kept, so that a second run takes no time.
wanted=$(cat requirements.txt "$requirements" | sha256sum | cut -d' ' -f1)
stamp=.venv/installed-${requirements##*/}
if [[ ! -f $stamp || $(< "$stamp") != "$wanted" ]]; then
  echo "Installing $requirements into .venv (a few minutes) ..."
  .venv/bin/python -m pip install --progress-bar off -q -r "$requirements"
  .venv/bin/python -c 'import torch, transformers
print(f"Installed: torch {torch.__version__}, {torch.cuda.device_count()} GPUs,", end=" ")
print(f"transformers {transformers.__version__}")'
  echo "$wanted" > "$stamp"
fi
