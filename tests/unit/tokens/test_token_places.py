# SPDX-License-Identifier: Apache-2.0
"""Where modules are looked for, and what they were built for."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.tokens.binary import machine_of, machines
from privyseal.tokens.places import find_modules, variable_of


def elf(*, machine: int = 62, bits: int = 64, order: str = "<", kind: int = 3) -> bytes:
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    return ident + struct.pack(order + "HHI", kind, machine, 1)


def mach(machine: int, order: str = "<") -> bytes:
    return struct.pack(order + "IIII", 0xFEEDFACF, machine, 0, 6)


def fat(*of: int) -> bytes:
    return struct.pack(">II", 0xCAFEBABE, len(of)) + b"".join(struct.pack(">5I", one, 0, 0, 0, 0) for one in of)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (elf(), {"x86_64"}),
        (elf(machine=183), {"aarch64"}),
        (elf(machine=40, bits=32), {"arm"}),
        (elf(machine=3, bits=32), {"i386"}),
        (elf(bits=32), {"x86_64 (32-bit addresses)"}),
        (elf(machine=21, order=">"), {"ppc64"}),
        (elf(machine=9999), {"ELF machine 9999"}),
        (mach(0x0100_000C), {"aarch64"}),
        (mach(0x0100_0007, ">"), {"x86_64"}),
        (fat(0x0100_0007, 0x0100_000C), {"x86_64", "aarch64"}),
        (fat(99), {"Mach-O machine 99"}),
        (elf(kind=1), set()),  # an object file
        (elf()[:12], set()),
        (b"\xca\xfe\xba\xbe\x00\x00\x00\x34" + bytes(64), set()),  # a Java class
        (fat(7, 7)[:20], set()),
        (b"MZ" + bytes(100), set()),
        (b"", set()),
    ],
)
def test_what_a_library_was_built_for(head: bytes, expected: set[str]) -> None:
    assert machines(head) == expected


@given(st.binary(max_size=64).flatmap(lambda tail: st.sampled_from([b"", elf()[:6], fat()[:4], mach(7)[:4]]).map(
    lambda head: head + tail
)))  # fmt: skip
def test_no_header_is_too_strange(head: bytes) -> None:
    assert all(isinstance(name, str) for name in machines(head))


def test_names_of_the_running_machine() -> None:
    assert [machine_of(name) for name in ("x86_64", "AMD64", "arm64", "i686")] == [
        "x86_64",
        "x86_64",
        "aarch64",
        "i386",
    ]


def put(root: Path, name: str, text: str = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_modules_are_found_once_whatever_leads_to_them(tmp_path: Path) -> None:
    real = put(tmp_path, "usr/lib/libeToken.so.10.8.28")
    (tmp_path / "usr/lib/libeToken.so").symlink_to(real.name)
    put(tmp_path, "usr/lib/x86_64-linux-gnu/opensc-pkcs11.so")
    put(tmp_path, "usr/lib/softhsm/libsofthsm2.so")
    put(tmp_path, "usr/local/lib/libykcs11.so.2")
    put(tmp_path, "usr/safenet/lunaclient/lib/libCryptoki2_64.so")
    put(tmp_path, "Library/OpenSC/lib/opensc-pkcs11.so")
    put(tmp_path, "usr/lib/libc.so.6")

    found = {str(one.path.relative_to(tmp_path)): one.product for one in find_modules(tmp_path)}

    assert found == {
        "usr/lib/libeToken.so": "SafeNet eToken",
        "Library/OpenSC/lib/opensc-pkcs11.so": "OpenSC",
        "usr/lib/x86_64-linux-gnu/opensc-pkcs11.so": "OpenSC",
        "usr/local/lib/libykcs11.so.2": "YubiKey PIV",
        "usr/lib/softhsm/libsofthsm2.so": "SoftHSM2",
        "usr/safenet/lunaclient/lib/libCryptoki2_64.so": "Thales Luna",
    }


def test_p11_kit_names_modules_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "opt/vendor/libvendor.so")
    put(tmp_path, "usr/lib/x86_64-linux-gnu/pkcs11/other.so")
    put(tmp_path, "usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-trust.so")
    absolute = put(
        tmp_path, "etc/pkcs11/modules/vendor.module", "# ours\n  module: /opt/vendor/libvendor.so\ncritical: no\n"
    )
    put(tmp_path, "usr/share/p11-kit/modules/other.module", "module:other.so")
    put(tmp_path, "usr/share/p11-kit/modules/trust.module", "module: p11-kit-trust.so\n")
    put(tmp_path, "usr/share/p11-kit/modules/far.module", "remote: |ssh host\n")
    put(tmp_path, "usr/share/p11-kit/modules/gone.module", "module: /opt/gone.so\n")
    (tmp_path / "usr/share/p11-kit/modules/binary.module").write_bytes(b"\xff\xfe\x00" * 100)

    found = {one.path.name: one.product for one in find_modules(tmp_path)}

    assert set(found) == {"libvendor.so", "other.so"}
    assert found["libvendor.so"] == str(absolute)


def test_a_module_is_given_only_the_variable_that_is_its_own() -> None:
    assert variable_of("/usr/lib/softhsm/libsofthsm2.so") == "SOFTHSM2_CONF"
    assert variable_of("/usr/lib/yubihsm_pkcs11.so") == "YUBIHSM_PKCS11_CONF"
    assert variable_of("/usr/lib/libeToken.so") == ""
