# SPDX-License-Identifier: Apache-2.0
"""Choosing a key profile by its certificate, where no key profile is named.

Candidates are the key profiles that the hub knows; whether this client may use the chosen one is for the hub to say.
Each step of the choice is kept, so that it can be told why a certificate was left out.
"""

import hashlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from privyseal.client.files import read_whole
from privyseal.errors import ConfigError, MalformedInputError, UnsupportedInputError
from privyseal.pki import oids
from privyseal.pki.x509 import Certificate, parse_certificate

__all__ = [
    "Candidate",
    "Choice",
    "Step",
    "Wish",
    "choose",
    "common_name",
    "name_contains",
    "read_certificates",
    "thumbprint",
]

_MAX_FILE_BYTES: Final = 1 << 20
_KEY_FILES: Final = (".pfx", ".p12", ".pvk")
_COMMON_NAME: Final = re.compile(r"(?:^|[,+])CN=((?:\\.|[^,+\\])*)", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A key profile and its certificate; there may be another one of the same profile, for another of its tokens.

    Attributes:
        chain: DER, leaf first; empty if the key profile cannot show a certificate.
        problem: Why its key cannot be used now, or empty.
        test: Whether its signatures are for trying things out.
    """

    profile: str
    chain: tuple[bytes, ...] = ()
    problem: str = ""
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the certificate must be like; an empty attribute asks for nothing.

    Attributes:
        subject, issuer, root: Parts of the names, in any case.
        thumbprint: SHA-1 of the certificate, hex.
        certificates: It must be one of these (DER).
        signer: Issuer's Name (DER) and serial number.
        usages: OIDs that its extended key usage must have.
        automatic: Take the best of those that are left: no test key if there is another, then the longest validity.
    """

    subject: str = ""
    issuer: str = ""
    root: str = ""
    thumbprint: str = ""
    certificates: tuple[bytes, ...] = ()
    signer: tuple[bytes, int] | None = None
    usages: tuple[str, ...] = (oids.EKU_CODE_SIGNING,)
    automatic: bool = False

    @property
    def names_one(self) -> bool:
        """Whether it is a wish for one certain certificate, and not for one of some kind."""
        return bool(self.thumbprint or self.certificates or self.signer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One condition: how many were left, and those that did not meet it, with the reason."""

    name: str
    left: int
    rejected: tuple[tuple[Candidate, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was considered, and what became of it.

    Attributes:
        is_certain: No other certificate of the chosen key profile will do, also not one that it may get.
        error: Why none was chosen, or None.
    """

    considered: tuple[Candidate, ...]
    steps: tuple[Step, ...]
    chosen: Candidate | None = None
    is_certain: bool = False
    error: ConfigError | None = None

    def reason(self, candidate: Candidate) -> str:
        """Why a candidate was left out, or empty."""
        return next((why for step in self.steps for one, why in step.rejected if one is candidate), "")


def read_certificates(path: Path) -> tuple[bytes, ...]:
    """The certificates (DER) of a file: one in DER, or any number in PEM.

    Raises:
        UnsupportedInputError: `certificate.with_key` for a file that holds, or is there to hold, a private key.
        MalformedInputError: `certificate.file`, `file.*`.
    """
    if path.suffix.lower() in _KEY_FILES:
        raise _with_key(path)
    data = read_whole(path, _MAX_FILE_BYTES)
    if b"PRIVATE KEY-----" in data:
        raise _with_key(path)
    try:
        with warnings.catch_warnings():
            # Some public authorities have serial numbers that RFC 5280 forbids; that is not ours to mend.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            is_pem = b"-----BEGIN" in data
            found = x509.load_pem_x509_certificates(data) if is_pem else [x509.load_der_x509_certificate(data)]
    except ValueError as error:
        raise MalformedInputError(
            "certificate.file", f"{path} holds no certificate", hint="a .cer or .crt file: one in DER, or PEM"
        ) from error
    return tuple(one.public_bytes(Encoding.DER) for one in found)


def _with_key(path: Path) -> UnsupportedInputError:
    return UnsupportedInputError(
        "certificate.with_key",
        f"{path} is a file for a private key, and none is used here: the key stays in the token behind the hub",
        hint="name the certificate alone (.cer), or choose by /n /i /r /sha1 /a; do not leave keys in build servers",
    )


def choose(considered: tuple[Candidate, ...], wish: Wish, at: datetime) -> Choice:
    """Choose a candidate; the choice says why none was chosen if there are none or several.

    Of a key profile with several certificates that all meet the wish, any will do, unless it is a wish for one of them.
    """
    left = considered
    steps = []
    for name, judge in _conditions(wish, at):
        judged = [(one, judge(one)) for one in left]
        rejected = tuple((one, why) for one, why in judged if why)
        left = tuple(one for one, why in judged if not why)
        steps.append(Step(name=name, left=len(left), rejected=rejected))
    meeting = left
    if wish.automatic and len(left) > 1:
        best = min(left, key=_rank)
        others = tuple((one, "another one is better") for one in left if one is not best)
        steps.append(Step(name="Best", left=1, rejected=others))
        left = (best,)
    if len(left) == 1 or (left and not wish.names_one and len({one.profile for one in left}) == 1):
        chosen = left[0]
        # One that is not valid now is not signed with: it need not meet anything.
        same = [one for one in considered if one.profile == chosen.profile and not (one.chain and _outside(one, at))]
        all_do = all(one in meeting for one in same)
        is_certain = wish.names_one or not all_do
        return Choice(considered=considered, steps=tuple(steps), chosen=chosen, is_certain=is_certain)
    return Choice(considered=considered, steps=tuple(steps), error=_failure(left))


_Judge = Callable[[Candidate], str]


def _conditions(wish: Wish, at: datetime) -> list[tuple[str, _Judge]]:
    """Each answers with a reason to reject, or nothing; those that nobody asked for are left out."""
    found: list[tuple[str, _Judge]] = [
        ("Certificate", lambda one: "" if one.chain else one.problem or "it has no certificate"),
        ("EKU", lambda one: _usage_missing(one, wish.usages)),
        ("expiry", lambda one: _outside(one, at)),
    ]
    optional: list[tuple[object, str, _Judge]] = [
        (
            wish.thumbprint,
            "Hash",
            lambda one: _unless(thumbprint(one.chain[0]) == wish.thumbprint, "another SHA1 hash"),
        ),
        (wish.certificates, "File", lambda one: _unless(one.chain[0] in wish.certificates, "not the one in the file")),
        (wish.signer, "Signer", lambda one: _unless(_identity(one) == wish.signer, "not the one that the .p7u names")),
        (wish.subject, "Subject Name", lambda one: _name_missing(one, wish.subject, "subject")),
        (wish.issuer, "Issuer Name", lambda one: _name_missing(one, wish.issuer, "issuer")),
        (wish.root, "Root Name", lambda one: _root_missing(one, wish.root)),
    ]
    found += [(name, judge) for wanted, name, judge in optional if wanted]
    return [*found, ("Private Key", lambda one: one.problem)]


def _failure(left: tuple[Candidate, ...]) -> ConfigError:
    if not left:
        return ConfigError(
            "certificate.none",
            "no certificate of a key profile meets all the given criteria",
            hint="the list says which ones there are and why each was left out; all key profiles: privyseal status",
        )
    names = "; ".join(
        f"{one.profile} ({common_name(_leaf(one).subject)}, SHA1 {thumbprint(one.chain[0])})" for one in left
    )
    return ConfigError(
        "certificate.several",
        f"{len(left)} certificates meet all the given criteria: {names}",
        hint="name one by /sha1, /n, /i or /f, or let the best be taken with /a",
    )


def _leaf(candidate: Candidate) -> Certificate:
    return parse_certificate(candidate.chain[0])


def _unless(holds: bool, why: str) -> str:  # noqa: FBT001
    return "" if holds else why


def thumbprint(certificate: bytes) -> str:
    """SHA-1 of a certificate in hex, as Windows names certificates; it protects nothing."""
    return hashlib.sha1(certificate, usedforsecurity=False).hexdigest()


def common_name(name: str) -> str:
    """The common name in a name (RFC 4514), else the whole of it, without escapes."""
    found = _COMMON_NAME.search(name)
    return _unescaped(found[1] if found else name)


def _unescaped(name: str) -> str:
    return _ESCAPED.sub(r"\1", name)


def _identity(candidate: Candidate) -> tuple[bytes, int]:
    leaf = _leaf(candidate)
    return leaf.issuer_name, leaf.serial_number


def _usage_missing(candidate: Candidate, usages: tuple[str, ...]) -> str:
    there = _leaf(candidate).extended_key_usage or ()
    missing = [usage for usage in usages if usage not in there]
    return f"its extended key usage lacks {', '.join(missing)}" if missing else ""


def _outside(candidate: Candidate, at: datetime) -> str:
    leaf = _leaf(candidate)
    if at > leaf.not_after:
        return f"it expired on {leaf.not_after.astimezone(UTC):%Y-%m-%d}"
    return f"it is valid from {leaf.not_before.astimezone(UTC):%Y-%m-%d} on" if at < leaf.not_before else ""


def _name_missing(candidate: Candidate, part: str, which: str) -> str:
    leaf = _leaf(candidate)
    name = leaf.subject if which == "subject" else leaf.issuer
    return _unless(name_contains(name, part), f"{part!r} is not in its {which} name")


def _root_missing(candidate: Candidate, part: str) -> str:
    return _unless(
        name_contains(parse_certificate(candidate.chain[-1]).issuer, part), f"{part!r} is not in its root's name"
    )


def name_contains(name: str, part: str) -> bool:
    """Whether a name (RFC 4514) has this part, in any case, with or without escapes."""
    return part.casefold() in name.casefold() or part.casefold() in _unescaped(name).casefold()


def _rank(candidate: Candidate) -> tuple[bool, float, str]:
    return candidate.test, -_leaf(candidate).not_after.timestamp(), candidate.profile
