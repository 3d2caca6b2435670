# SPDX-License-Identifier: Apache-2.0
"""Whether programs of this host wait for a processor: what is measured meanwhile says more of them than of a card."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["HostLoad"]

_MOST_PERCENT: Final = 20.0
_MOST_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """This host, by the kernel's pressure stall information; by its load average where that is switched off."""

    pressure: Path = Path("/proc/pressure/cpu")
    load: Path = Path("/proc/loadavg")

    def is_busy(self) -> bool:
        """Whether in the last ten seconds some program waited for a fifth of the time; False if nobody can tell."""
        waited = re.match(r"some avg10=([0-9]{1,3}\.[0-9]{1,2}) ", _text(self.pressure))
        if waited:
            return float(waited[1]) >= _MOST_PERCENT
        wanting = re.match(r"([0-9]{1,6}\.[0-9]{1,2}) ", _text(self.load))
        return wanting is not None and float(wanting[1]) > (os.cpu_count() or 1)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("ascii", "replace")
    except OSError:
        return ""
