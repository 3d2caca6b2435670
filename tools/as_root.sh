#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run a command as root: as we are, or by a sudo that asks for nothing. Exit status 1 and silence if neither is possible.
set -eu
[ "$(id -u)" = 0 ] && exec env DEBIAN_FRONTEND=noninteractive "$@"
command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null && exec sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
exit 1
