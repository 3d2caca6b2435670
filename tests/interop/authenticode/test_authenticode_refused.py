# SPDX-License-Identifier: Apache-2.0
"""One changed byte: what osslsigncode refuses, we refuse; and both refuse whatever the digest covers."""

import random
from pathlib import Path

import pytest

from authenticode_judges import accepted_by_lief, accepted_by_osslsigncode, accepted_by_signify, accepted_by_yara
from inputs import MICROSOFT_SIGNED, UNSIGNED, Input
from pe_samples import sign, verify
from pki_samples import authority, signer
from privyseal.errors import MalformedInputError, UnsupportedInputError

pytestmark = pytest.mark.interop

FILES = (UNSIGNED[0], UNSIGNED[2], UNSIGNED[7], UNSIGNED[13], UNSIGNED[14], UNSIGNED[16], MICROSOFT_SIGNED[2])
COVERED_CHANGES = 30
TABLE_CHANGES = 12


def accepted_by_us(data: bytes) -> bool:
    try:
        reports = verify(data)
    except (MalformedInputError, UnsupportedInputError):
        return False
    return bool(reports) and all(not report.problem_code for report in reports)


def header_offsets(data: bytes) -> tuple[int, int, int]:
    """Of CheckSum, of the certificate directory, and of the certificate table."""
    optional = int.from_bytes(data[0x3C:0x40], "little") + 24
    plus = data[optional : optional + 2] == b"\x0b\x02"
    directory = optional + (112 if plus else 96) + 32
    return optional + 64, directory, int.from_bytes(data[directory : directory + 4], "little")


def chosen_changes(name: str, data: bytes) -> list[tuple[int, bool]]:
    """Offsets to change, and whether the signature covers them: headers, data, certificate table."""
    checksum, directory, table = header_offsets(data)
    seeded = random.Random(name)
    uncovered = {*range(checksum, checksum + 4), *range(directory, directory + 8)}
    headers = [seeded.randrange(0x400) for _ in range(COVERED_CHANGES // 3)]
    body = [seeded.randrange(table) for _ in range(COVERED_CHANGES - len(headers))]
    behind = [seeded.randrange(table, len(data)) for _ in range(TABLE_CHANGES)]
    covered = [(offset, True) for offset in headers + body if offset not in uncovered]
    return covered + [(offset, False) for offset in behind]


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_one_changed_byte_is_refused(file: Input, kind: str, tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    root.write_bytes(authority().pem)
    signed = sign(file.read(), signer(kind))
    path = tmp_path / "changed.exe"
    assert accepted_by_us(signed)

    for offset, covered in chosen_changes(file.name, signed):
        changed = bytearray(signed)
        changed[offset] ^= 0x41
        path.write_bytes(changed)
        theirs, ours = accepted_by_osslsigncode(path, root), accepted_by_us(bytes(changed))

        assert not (ours and not theirs), f"we accept a change at {offset} that osslsigncode refuses"
        if covered:
            assert (ours, theirs) == (False, False), f"a change at {offset}"


def test_the_other_judges_refuse_a_changed_byte_as_well() -> None:
    signed = bytearray(sign(UNSIGNED[0].read(), signer("rsa")))
    signed[0x800] ^= 1
    changed = bytes(signed)

    assert not accepted_by_us(changed)
    assert not accepted_by_signify(changed, (authority().der,))
    assert not accepted_by_lief(changed)
    assert not accepted_by_yara(changed)
