# SPDX-License-Identifier: Apache-2.0
"""A wall clock of one process that jumps while it runs (libfaketime)."""

from dataclasses import dataclass
from pathlib import Path

from interop_tools import require_file

__all__ = ["FakeClock"]

_LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"


@dataclass(frozen=True)
class FakeClock:
    """Set by a file that the process reads again at each look at the clock."""

    file: Path

    @property
    def environment(self) -> dict[str, str]:
        """For the process; its clock is right until the first jump."""
        self.jump(0)
        return {
            "LD_PRELOAD": str(require_file(_LIBRARIES, "faketime")),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }

    def jump(self, seconds: int) -> None:
        """So far from the right time."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self.file)
