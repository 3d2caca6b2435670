# SPDX-License-Identifier: Apache-2.0
"""How many connections pcscd has, and how many of them are this process's own (Linux).

Each program that reaches a card through pcscd holds a connected socket named after pcscd's. What this cannot see: a
program that came and went between two looks, one in another network namespace, and one that speaks to the reader
without pcscd.
"""

import os
import socket
import stat
from collections import Counter
from pathlib import Path
from typing import Final

__all__ = ["connected", "own_connections"]

#: Not /proc/net, which a service with ProcSubset=pid does not see.
_TABLE: Final = Path("/proc/self/net/unix")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_SOCKET: Final = "pcscd.comm"
_STATE_CONNECTED: Final = "03"
_COLUMNS: Final = 8


def own_connections() -> Counter[str]:
    """Connections of this process by the name of pcscd's socket; empty if it has none, or none can be seen."""
    found: Counter[str] = Counter()
    for entry in _DESCRIPTORS.iterdir() if _DESCRIPTORS.is_dir() else ():
        peer = _peer(int(entry.name))
        if peer.rpartition("/")[2] == _SOCKET:
            found[peer] += 1
    return found


def _peer(descriptor: int) -> str:
    """The name of the unix socket at a descriptor's other end; empty for anything else."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return ""
        with socket.socket(fileno=os.dup(descriptor)) as held:
            name = held.getpeername() if held.family == socket.AF_UNIX else ""
    except OSError:  # closed meanwhile, or connected to nothing
        return ""
    return name if isinstance(name, str) else ""


def connected(names: frozenset[str], table: Path = _TABLE) -> int:
    """How many connections sockets of these names have, whoever holds them.

    Raises:
        OSError: if the system does not show it.
    """
    count = 0
    with table.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            columns = line.rstrip("\n").split(maxsplit=_COLUMNS - 1)
            # Num RefCount Protocol Flags Type St Inode Path
            if len(columns) == _COLUMNS and columns[5] == _STATE_CONNECTED and columns[7] in names:
                count += 1
    return count
