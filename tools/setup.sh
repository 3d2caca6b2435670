#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Make .venv fit for `runtime` (what `privyseal` needs) or `dev` (that, and every check and test), from the lock files.
# Does nothing if that was done before and no lock has changed. Never touches the system's Python.
set -eu
cd "$(dirname "$0")/.."

profile=${1:-}
case $profile in
  runtime | dev) ;;
  *)
    echo "usage: tools/setup.sh runtime|dev" >&2
    exit 2
    ;;
esac

say() { echo "setup: $*" >&2; }

# The mark says from which files and in which folder the environment was made; a change of any of them makes it anew.
fingerprint() {
  { pwd && cat pyproject.toml tools/setup.sh requirements/runtime.txt requirements/dev.txt; } | cksum | tr ' ' '-'
}

is_made() { [ -x .venv/bin/python ] && [ "$(cat ".venv/.made-$1" 2>/dev/null)" = "$mark" ]; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3}; do
    if is_new_enough "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  say "Python 3.11 or newer was not found; install it, or name it: make PYTHON=/path/to/python3 ..."
  exit 1
}

# Debian keeps venv and ensurepip in a package of their own.
require_venv() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null && return
  package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  if tools/apt_get.sh --version >/dev/null 2>&1; then
    say "installing $package"
    tools/apt_get.sh update || say "apt-get update failed; going on with the lists there are"
    tools/apt_get.sh install -y --no-install-recommends "$package" || say "$package cannot be had"
  fi
  "$1" -c 'import ensurepip, venv' 2>/dev/null && return
  say "$1 cannot make virtual environments; type: sudo apt-get update && sudo apt-get install $package"
  exit 1
}

# Wheels only: no compiler, and no build tool that is not pinned.
install() {
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
    -r "requirements/$1.txt"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
}

mark=$(fingerprint)
if is_made dev || is_made "$profile"; then
  exit 0
fi

python=$(find_python)
require_venv "$python"
if ! is_made runtime; then
  say "making .venv with $python"
  "$python" -m venv --clear .venv
fi
say "installing requirements/$profile.txt"
install "$profile"
if [ "$profile" = dev ]; then
  .venv/bin/python tools/patch_oscrypto.py
fi
echo "$mark" > ".venv/.made-$profile"
