#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What agent.toml of this machine would name to restart pcscd; there is no systemd here.
set -eu
pid=$(cat /run/pcscd/pcscd.pid)
kill "$pid"
tail --pid="$pid" -f /dev/null
OPENSC_CONF=/run/opensc.conf exec pcscd
