#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# apt-get as root, quiet, asking nothing, waiting for others who hold its lock. Exit status 1 where that is not possible.
set -eu
command -v apt-get >/dev/null 2>&1 || exit 1
exec "$(dirname "$0")/as_root.sh" apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >&2
