# SPDX-License-Identifier: Apache-2.0
"""Whether programs of this host wait for a processor: what is measured meanwhile says more of them than of a card."""

import ctypes
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["HostLoad"]

_MOST_PERCENT: Final = 20.0
_MOST_BYTES: Final = 4096


#: struct sysinfo of sysinfo(2) has less; its load averages are in units of 1/65536.
_SYSINFO_LONGS: Final = 64
_LOAD_UNIT: Final = 65_536


def _load_average() -> float:
    """Of the last minute; asked of the kernel, as a service whose /proc shows only processes has no /proc/loadavg."""
    values = (ctypes.c_ulong * _SYSINFO_LONGS)()
    try:
        failed = ctypes.CDLL(None).sysinfo(ctypes.byref(values))
    except (AttributeError, OSError, TypeError):  # not Linux
        return 0.0
    return 0.0 if failed else values[1] / _LOAD_UNIT


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """This host, by the kernel's pressure stall information; by its load average where that cannot be read."""

    pressure: Path = Path("/proc/pressure/cpu")
    load_average: Callable[[], float] = _load_average

    def is_busy(self) -> bool:
        """Whether in the last ten seconds some program waited for a fifth of the time."""
        waited = re.match(r"some avg10=([0-9]{1,3}\.[0-9]{1,2}) ", _text(self.pressure))
        if waited:
            return float(waited[1]) >= _MOST_PERCENT
        return self.load_average() > (os.cpu_count() or 1)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("ascii", "replace")
    except OSError:
        return ""
