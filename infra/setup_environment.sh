#!/usr/bin/env bash
# Makes the virtual environment with exactly the versions of constraints.txt.
# PyTorch goes first (DeepSpeed's build imports it), with its size said before it is downloaded.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}

fail() { echo "error: $1" >&2; exit 1; }

# What pip is doing, on one line that rewrites itself; nothing where output goes to a file.
show() {
  while IFS= read -r line; do
    case $line in
      Collecting* | *Downloading* | Installing* | *Building*)
        [ -t 1 ] && printf '\r\033[K  %.76s' "${line#"${line%%[! ]*}"}" ;;
    esac
  done
  [ -t 1 ] && printf '\r\033[K'
  return 0
}

install() {
  "$venv/bin/python" -m pip --disable-pip-version-check install "$@" -c constraints.txt \
    2> >(grep --line-buffered -v '^WARNING: Location' >&2) | show
}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
  fail "Python: expected python3 on PATH; found none. To fix it: install Python 3.11 or newer, or run make PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "Python: expected 3.11 or newer; found $version. To fix it: run make PYTHON=/path/to/python3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
  fail "Python: expected the venv module; found none. To fix it: install python3-venv"

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

torch=$(grep '^torch==' constraints.txt)
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  if [ "$(uname -s)" = Linux ] && [ -z "${TORCH_INDEX:-}" ]; then
    cuda=$("$venv/bin/python" -m pip --disable-pip-version-check install --dry-run --quiet \
      --report - "$torch" 2>/dev/null | grep -c '"name": "nvidia-' || true)
    if [ "$cuda" -gt 0 ]; then
      echo "$torch comes as the CUDA build here: about 3 GB to download, 7 GB on disk."
      echo "For the CPU build (200 MB) stop now and follow 'CPU build of PyTorch' in README.md."
    fi
  fi
  echo "Installing $torch ..."
  install "$torch" numpy ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
fi
echo "Installing Consortia and what it needs (about 1.7 GB on disk) ..."
install setuptools
install --no-build-isolation -e '.[dev]'
