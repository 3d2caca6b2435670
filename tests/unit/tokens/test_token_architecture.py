# SPDX-License-Identifier: Apache-2.0
"""For which processor a module was built: headers of this machine's programs, and some written by hand."""

import platform
import re
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interop_tools import run_program
from privyseal.tokens.architecture import HEADER_BYTES, architectures


def elf(machine: int, *, bits: int = 2, big: bool = False) -> bytes:
    ident = b"\x7fELF" + bytes([bits, 2 if big else 1, 1]) + bytes(9)
    return ident + struct.pack(">HH" if big else "<HH", 3, machine)


def test_this_python_is_for_this_machine() -> None:
    with Path(sys.executable).open("rb") as file:
        found = architectures(file.read(HEADER_BYTES))

    assert platform.machine().replace("arm64", "aarch64") in found


@pytest.mark.interop
@pytest.mark.parametrize(
    ("machine", "bits", "ours", "theirs"),
    [
        (183, 2, "aarch64", "AArch64"),
        (40, 1, "arm", "ARM"),
        (62, 2, "x86_64", "Advanced Micro Devices X86-64"),
        (3, 1, "i386", "Intel 80386"),
        (243, 2, "riscv64", "RISC-V"),
    ],
)
def test_readelf_reads_the_same(machine: int, bits: int, ours: str, theirs: str, tmp_path: Path) -> None:
    path = tmp_path / "library"
    path.write_bytes(elf(machine, bits=bits).ljust(64, b"\0"))

    said = run_program("readelf", "-h", path)[1]

    assert re.findall(r"Machine:\s+(.*)", said) == [theirs]
    assert architectures(path.read_bytes()) == (ours,)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (elf(62), ("x86_64",)),
        (elf(183), ("aarch64",)),
        (elf(3, bits=1), ("i386",)),
        (elf(40, bits=1), ("arm",)),
        (elf(22, big=True), ("s390x",)),
        (elf(8), ("ELF machine 8, class 2",)),
        (b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x0100000C), ("aarch64",)),
        (
            b"\xca\xfe\xba\xbe" + struct.pack(">I", 2) + b"".join(struct.pack(">5I", cpu, 0, 0, 0, 0)
            for cpu in (0x01000007, 0x0100000C)),
            ("x86_64", "aarch64"),
        ),
        (b"MZ" + bytes(100), ()),
        (b"\x7fELF", ()),
        (b"", ()),
    ],
)  # fmt: skip
def test_headers(header: bytes, found: tuple[str, ...]) -> None:
    assert architectures(header) == found


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x7fELF\x02\x01", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"]))
def test_any_bytes_are_read_without_an_error(tail: bytes, head: bytes) -> None:
    assert len(architectures(head + tail)) <= 16
