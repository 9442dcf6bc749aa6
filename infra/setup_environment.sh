#!/usr/bin/env bash
# Makes the virtual environment with exactly the versions of constraints.txt.
# PyTorch goes first (DeepSpeed's build imports it), with its size said before it is downloaded.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}

fail() { echo "error: $1" >&2; exit 1; }

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
  fail "Python: expected python3 on PATH; found none. To fix it: install Python 3.11 or newer, or run make PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "Python: expected 3.11 or newer; found $version. To fix it: run make PYTHON=/path/to/python3.11"
command -v g++ >/dev/null ||
  fail "C++ compiler: expected g++ (DeepSpeed builds its CPU communication with it); found none. To fix it: install g++ and the Python headers"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
  fail "Python: expected the venv module; found none. To fix it: install python3-venv"

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --quiet"

torch=$(grep '^torch==' constraints.txt)
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  echo "Installing $torch ..."
  if [ "$(uname -s)" = Linux ] && [ -z "${TORCH_INDEX:-}" ]; then
    plan=$("$venv/bin/python" -m pip --disable-pip-version-check install --dry-run --quiet \
      --report - "$torch" 2>/dev/null | grep -o '"name": "nvidia-[a-z0-9-]*"' | sort -u | wc -l) || plan=0
    if [ "$plan" -gt 0 ]; then
      echo "This is the CUDA build: about 3 GB to download, 7 GB on disk."
      echo "For the CPU build (200 MB) stop now and follow 'CPU build' in README.md."
    fi
  fi
  $pip install "$torch" numpy -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
fi
echo "Installing Consortia and what it needs (about 500 MB) ..."
$pip install setuptools -c constraints.txt
$pip install --no-build-isolation -c constraints.txt -e '.[dev]'
