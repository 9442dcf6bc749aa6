#!/usr/bin/env bash
# Makes the virtual environment with exactly the versions of constraints.txt; $1 is its folder.
# It can be interrupted anywhere and run again, also twice at the same time: what pip had not
# finished is installed again, what was complete is kept.
set -euo pipefail
venv=$1
stamp=$venv/.installed
log=$venv/set-up.log
python=${PYTHON:-python3}

fail() { echo "error: $1: expected $2; found $3. To fix it: $4" >&2; exit 1; }

trap 'echo "Interrupted. Run it again to go on from here." >&2; exit 130' INT TERM

is_done() {
  [ "$stamp" -nt constraints.txt ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt "$0" ]
}

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

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

install() {
  pip install "$@" 2>&1 | tee -a "$log" | show ||
    fail "installing" "pip to succeed" "$(grep -m 1 '^ERROR' "$log" || tail -n 1 "$log")" \
      "read the end of $log, check the disk, the network and pip's settings, then repeat"
}

# pip writes INSTALLER when all files are there; what lacks it would still count as installed.
forget_unfinished() {
  local found
  for found in "$venv"/lib/python*/site-packages/*.dist-info; do
    [ -e "$found/METADATA" ] && [ ! -e "$found/INSTALLER" ] && rm -r "$found"
  done
  return 0
}

# Where packages come from is the caller's to say; what is installed, and where, is not.
only_sources_of_the_caller() {
  local name
  for name in $(compgen -e PIP_); do
    case $name in
      PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_FIND_LINKS | PIP_NO_INDEX | PIP_CONFIG_FILE) ;;
      PIP_CERT | PIP_CLIENT_CERT | PIP_PROXY | PIP_TRUSTED_HOST | PIP_KEYRING_PROVIDER) ;;
      PIP_TIMEOUT | PIP_DEFAULT_TIMEOUT | PIP_RETRIES | PIP_CACHE_DIR | PIP_NO_CACHE_DIR) ;;
      *) unset "$name" ;;
    esac
  done
  unset PYTHONPATH PYTHONHOME
  export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0
  # DeepSpeed comes as source. It is built apart from the environment, where it finds no PyTorch,
  # and therefore looks for no CUDA and compiles nothing. Constraints reach such a build by the
  # first of these in older versions of pip, by the second in newer ones.
  export PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
  export DS_ACCELERATOR=cpu DS_BUILD_OPS=0
}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
  fail "Python" "the program $python" "none" \
    "install Python 3.11 or newer, or run make PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "Python" "3.11 or newer" "$version" "run make PYTHON=/path/to/python3.11"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
  fail "Python" "the venv module" "none" "install python3-venv"

# One set-up at a time; whoever waited finds that there is nothing left to do. Where the file system
# knows no such locks, set-up goes on without.
lock=.consortia/set-up.lock
mkdir -p .consortia 2>/dev/null && touch "$lock" 2>/dev/null ||
  fail "folder $PWD" "a folder that can be written" "one that cannot" "correct the permissions"
exec 9>>"$lock"
if command -v flock >/dev/null; then
  refused=0
  flock --nonblock 9 2>/dev/null || refused=$?
  if [ "$refused" -eq 1 ]; then
    echo "Another make is installing; waiting for it ..."
    flock 9
  fi
fi
is_done && exit 0

only_sources_of_the_caller
has_pip() { "$venv/bin/python" -m pip --version >/dev/null 2>&1; }
if ! has_pip && ! { "$venv/bin/python" -m ensurepip >/dev/null 2>&1 && has_pip; }; then
  made=$("$python" -m venv --clear "$venv" 2>&1) ||
    fail "environment $venv" "a folder that can be written" "$(tail -n 1 <<<"$made")" \
      "free disk space or correct the permissions, then repeat"
fi
: >"$log"
# Renamed to the stamp at the end, with the time of now: what is edited meanwhile counts as newer.
touch "$stamp.begun"
forget_unfinished
# Older ones download PyTorch whole to say what it would need.
install --upgrade pip

torch=$(grep '^torch==' constraints.txt)
has_torch='
import importlib.metadata, sys, torch
sys.exit(importlib.metadata.version("torch").partition("+")[0] != sys.argv[1])'
if ! "$venv/bin/python" -c "$has_torch" "${torch#torch==}" 2>/dev/null; then
  # First and by itself, because it may come from an index of its own, and its size is said before.
  if [ "$(uname -s)" = Linux ] && [ -z "${TORCH_INDEX:-}" ]; then
    cuda=$(pip install --dry-run --quiet --report - "$torch" 2>/dev/null |
      grep -c '"name": "nvidia-' || true)
    if [ "$cuda" -gt 0 ]; then
      echo "$torch comes as the CUDA build here: about 3 GB to download, 7 GB on disk."
      echo "For the CPU build (200 MB) stop now and follow 'CPU build of PyTorch' in README.md."
    fi
  fi
  echo "Installing $torch ..."
  install "$torch" numpy ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
fi
echo "Installing Consortia and what it needs (about 1.7 GB on disk) ..."
install -e '.[dev]'
mv "$stamp.begun" "$stamp"
