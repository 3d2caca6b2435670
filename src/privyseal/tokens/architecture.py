# SPDX-License-Identifier: Apache-2.0
"""For which processors a PKCS#11 module was built, by its first bytes (System V ABI: ELF header; Mach-O, fat)."""

import struct
from typing import Final

__all__ = ["HEADER_BYTES", "architectures"]

#: Enough for every header that is looked at.
HEADER_BYTES: Final = 4096

_ELF_MACHINES: Final = {
    (1, 3): "i386",
    (1, 40): "arm",
    (2, 21): "ppc64",
    (2, 22): "s390x",
    (2, 62): "x86_64",
    (2, 183): "aarch64",
    (2, 243): "riscv64",
}
_MACHO_CPUS: Final = {0x0100_0007: "x86_64", 0x0100_000C: "aarch64"}
_FAT_ENTRY_BYTES: Final = 20
_MAX_FAT_ENTRIES: Final = 16


def architectures(header: bytes) -> tuple[str, ...]:
    """The processors that a shared library or program is for; empty if the bytes are neither ELF nor Mach-O."""
    if header[:4] == b"\x7fELF" and len(header) >= 20 and header[5] in (1, 2):
        order = "<" if header[5] == 1 else ">"
        (machine,) = struct.unpack_from(order + "H", header, 18)
        return (_ELF_MACHINES.get((header[4], machine), f"ELF machine {machine}, class {header[4]}"),)
    if header[:4] == b"\xcf\xfa\xed\xfe" and len(header) >= 8:
        return (_cpu(*struct.unpack_from("<I", header, 4)),)
    if header[:4] == b"\xca\xfe\xba\xbe" and len(header) >= 8:
        (count,) = struct.unpack_from(">I", header, 4)
        places = [8 + _FAT_ENTRY_BYTES * index for index in range(min(count, _MAX_FAT_ENTRIES))]
        return tuple(_cpu(*struct.unpack_from(">I", header, place)) for place in places if place + 4 <= len(header))
    return ()


def _cpu(cpu_type: int) -> str:
    return _MACHO_CPUS.get(cpu_type, f"Mach-O CPU {cpu_type:#x}")
