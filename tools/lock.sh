#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Renew requirements/*.txt from pyproject.toml: every version pinned, every file by its hashes, no index named.
# Versions stay unless something asks for more; --upgrade takes the newest. The development lock is constrained by
# the runtime lock, so both fit into one environment.
set -eu
cd "$(dirname "$0")/.."

compile() {
  "${UV:-.venv/bin/uv}" pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock' "$@"
}

compile "$@" --extra hub --extra agent --extra keyring --extra usb --extra demo pyproject.toml requirements/build.in \
  -o requirements/runtime.txt
compile "$@" --extra dev --constraint requirements/runtime.txt pyproject.toml requirements/build.in \
  -o requirements/dev.txt
