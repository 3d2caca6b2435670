# SPDX-License-Identifier: Apache-2.0
"""For which processors a shared library was built, from its first bytes (ELF: gABI §4; Mach-O: <mach-o/loader.h>).

A module is loaded only after this: the loader's own words for the wrong processor help nobody.
"""

import struct
from typing import Final

__all__ = ["HEAD_BYTES", "machine_of", "machines"]

#: Enough for every header that is looked at here.
HEAD_BYTES: Final = 4096

_ELF_MACHINES: Final = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}
_ELF_DYNAMIC: Final = 3
_MACH_MACHINES: Final = {7: "i386", 0x0100_0007: "x86_64", 12: "arm", 0x0100_000C: "aarch64"}
_MACH_THIN: Final = {0xFEEDFACE, 0xFEEDFACF}
_MACH_FAT: Final = {0xCAFEBABE: 20, 0xCAFEBABF: 32}  #: magic -> bytes of one fat_arch
_MAX_FAT_MACHINES: Final = 32


def machines(head: bytes) -> frozenset[str]:
    """What the library was built for: `x86_64`, `aarch64`, ...; empty if it is no shared library."""
    if head[:4] == b"\x7fELF":
        return _elf(head)
    try:
        return _mach(head)
    except struct.error:
        return frozenset()


def machine_of(uname: str) -> str:
    """The same name for what uname(2) says of the running machine."""
    return {"amd64": "x86_64", "arm64": "aarch64", "i686": "i386"}.get(uname.lower(), uname.lower())


def _elf(head: bytes) -> frozenset[str]:
    if len(head) < 20 or head[4] not in (1, 2) or head[5] not in (1, 2):
        return frozenset()
    order = "<" if head[5] == 1 else ">"
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    if kind != _ELF_DYNAMIC:
        return frozenset()
    name = _ELF_MACHINES.get(machine, f"ELF machine {machine}")
    if name in ("x86_64", "aarch64") and head[4] == 1:
        name += " (32-bit addresses)"
    return frozenset((name,))


def _mach(head: bytes) -> frozenset[str]:
    (big,) = struct.unpack_from(">I", head)
    if size := _MACH_FAT.get(big):
        (count,) = struct.unpack_from(">I", head, 4)
        # A Java class file begins with the same four bytes; its version stands where the count would.
        if not 0 < count <= _MAX_FAT_MACHINES:
            return frozenset()
        return frozenset(_mach_name(struct.unpack_from(">I", head, 8 + place * size)[0]) for place in range(count))
    for order in "<>":
        magic, machine = struct.unpack_from(order + "II", head)
        if magic in _MACH_THIN:
            return frozenset((_mach_name(machine),))
    return frozenset()


def _mach_name(machine: int) -> str:
    return _MACH_MACHINES.get(machine, f"Mach-O machine {machine}")
