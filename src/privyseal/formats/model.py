# SPDX-License-Identifier: Apache-2.0
"""The record that every format fills in, and the values that pass between its functions.

A format never opens a file: `scan` and `verify` read a seekable binary stream once, in bounded memory; `embed`
answers with a `Patch`, so that whoever owns the file decides how to copy it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import BinaryIO, Protocol

__all__ = [
    "Artifact",
    "Binding",
    "Dispensable",
    "Edits",
    "Finding",
    "Format",
    "PageHashState",
    "Patch",
    "Placement",
    "Preimage",
    "PreimageFacts",
    "Scan",
    "Severity",
    "SignOptions",
    "SignatureKind",
    "SignatureReport",
    "Signed",
    "TimestampReport",
    "TrustAnchors",
]


class Binding(Enum):
    """How much of the artifact a preimage shows to hub and agent (said in every log entry)."""

    BOUND = "bound"  #: the preimage names the artifact's digest
    WHOLE = "whole"  #: the preimage is the content itself
    OPAQUE = "opaque"  #: a bare digest: only for key profiles that list the format


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The digest by which a format names the thing that it signs (for PE: the Authenticode digest)."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Preimage:
    """The small structure that a signature covers.

    Attributes:
        signed: Exactly the bytes that are hashed and signed (CMS: the DER SET OF signed attributes).
        detail: What a digest inside `signed` commits to and a reader needs (Authenticode: the DER
            SpcIndirectDataContent); empty if the format has none.
    """

    signed: bytes
    detail: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreimageFacts:
    """What a preimage says once parsed: the only things that hub and agent believe about an artifact."""

    artifact: Artifact
    digest_algorithm: str  #: of `digest`
    digest: bytes  #: what the token signs; for all but opaque formats the hash of `Preimage.signed`


class Placement(Enum):
    """Where a new signature goes in a file that is signed already."""

    REPLACE = "replace"  #: instead of what is there
    NESTED = "nested"  #: within the first signature, which stays (signtool's /as)
    ENTRY = "entry"  #: as one more entry of the certificate table, as UEFI firmware reads them


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOptions:
    """What a person may choose for one signature.

    Attributes:
        page_hashes: Put digests of the image's pages into the signature (signtool's /ph).
    """

    digest_algorithm: str = "sha256"
    program_name: str = ""
    program_url: str = ""
    page_hashes: bool = False
    placement: Placement = Placement.REPLACE


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signature value and all that goes into the file with it.

    Attributes:
        signature: RSA block or DER ECDSA-Sig-Value over `preimage`.
        chain: DER certificates, leaf first.
        timestamp_token: RFC 3161 token (ContentInfo, DER) over `signature`, or empty.
    """

    preimage: Preimage
    signature: bytes
    chain: tuple[bytes, ...]
    timestamp_token: bytes = b""
    placement: Placement = Placement.REPLACE


class Scan(Protocol):
    """What one streaming pass over a file learned; each format has its own with these in common."""

    @property
    def artifact(self) -> Artifact:
        """The digest that will stand in the preimage."""
        ...

    @property
    def size_bytes(self) -> int:
        """Size of the file that was read."""
        ...

    @property
    def is_signed(self) -> bool:
        """Whether it carries a signature already, of whatever worth."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """How the signed file differs from the original.

    Attributes:
        keep_bytes: Length of the original's prefix that stays (a replaced signature behind it is cut off).
        writes: (offset, bytes) in ascending order of offset, without overlap; may reach behind `keep_bytes`.
    """

    keep_bytes: int
    writes: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchors:
    """Root certificates (DER) that a verification may end at, for code signing and for time stamping."""

    code_signing: tuple[bytes, ...]
    time_stamping: tuple[bytes, ...] = ()


class Severity(Enum):
    """What a finding means for the verdict."""

    PROBLEM = "problem"  #: the signature does not hold
    WARNING = "warning"  #: it holds, but somebody should know


class SignatureKind(Enum):
    """Where in its file a signature stands."""

    PRIMARY = "primary"  #: the first one, which is all that most programs look at
    NESTED = "nested"  #: within another one
    ENTRY = "entry"  #: a further entry of the certificate table


class PageHashState(Enum):
    """What is known of a signature's page hashes."""

    ABSENT = "absent"
    UNCHECKED = "unchecked"  #: there, but something else failed first, or the pages cannot be told apart
    CHECKED = "checked"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that was noticed; `code` is stable, `message` a sentence for people."""

    severity: Severity
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampReport:
    """One RFC 3161 timestamp of a signature.

    Attributes:
        gen_time: What the token says, believed or not; None if it cannot be read.
        subject: The TSA certificate's subject (RFC 4514), or empty.
        problem_code: Empty if it holds; else why it counts for nothing.
        problem: The same as a sentence.
    """

    gen_time: datetime | None
    subject: str
    problem_code: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureReport:
    """One signature that was found in a file, and what became of it.

    Attributes:
        subject: The signer certificate's subject (RFC 4514), or empty if there is none.
        spki_sha256: SHA-256 of the signer's SubjectPublicKeyInfo.
        signature_sha256: SHA-256 of the signature value as it stands in the file.
        artifact: The digest that the signature names.
        digest_algorithm: The signer's, over the signed attributes; empty if unknown.
        chain: DER certificates, leaf first, as far as a path was found.
        anchored: Whether `chain` ends at a trust anchor, and holds.
        timestamped_at: genTime of a verified RFC 3161 timestamp, or None.
        timestamps: All of them, also those that do not hold.
        countersignatures: How many PKCS #9 countersignatures there are; they are not judged.
        findings: Everything that was noticed, in the order in which it was looked at. What concerns the file as a
            whole stands with its first signature.
        windows: What Windows would say, as a sentence; empty for what Windows does not judge.
    """

    subject: str
    spki_sha256: bytes
    signature_sha256: bytes
    artifact: Artifact
    kind: SignatureKind = SignatureKind.PRIMARY
    digest_algorithm: str = ""
    chain: tuple[bytes, ...] = ()
    anchored: bool = False
    page_hashes: PageHashState = PageHashState.ABSENT
    timestamped_at: datetime | None = None
    timestamps: tuple[TimestampReport, ...] = ()
    countersignatures: int = 0
    findings: tuple[Finding, ...] = ()
    windows: str = ""

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings for which it does not hold."""
        return tuple(one for one in self.findings if one.severity is Severity.PROBLEM)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings in spite of which it holds."""
        return tuple(one for one in self.findings if one.severity is Severity.WARNING)

    @property
    def problem_code(self) -> str:
        """Empty if everything holds; else the stable code of the first thing that does not."""
        problems = self.problems
        return problems[0].code if problems else ""

    @property
    def problem(self) -> str:
        """The first problem as a sentence, or empty."""
        problems = self.problems
        return problems[0].message if problems else ""


class Dispensable(Enum):
    """What a signature can be without, and is still the same signature."""

    CERTIFICATES = "certificates"  #: all but the signer's
    UNSIGNED_ATTRIBUTES = "unsigned attributes"  #: nested signatures and timestamps, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What can be done to a file's signatures without a key.

    Attributes:
        remove: scan -> Patch that takes every signature out.
        extract: scan -> the first signature as a detached file (Authenticode: ContentInfo, DER).
        digest_algorithm: detached signature -> the digest algorithm that the file must be scanned with to attach it.
        attach: (scan, detached signature) -> Patch. Raises MalformedInputError if it is one of another file.
        signature_values: scan -> the signature value of each signature, in the order of `Format.verify`.
        add_timestamp: (scan, position in `signature_values`, RFC 3161 token) -> Patch that puts the token beside
            that signature, instead of one that is there.
        strip: (scan, what) -> Patch that takes this out of every signature; None where that cannot be done.
    """

    remove: Callable[[Scan], Patch]
    extract: Callable[[Scan], bytes]
    digest_algorithm: Callable[[bytes], str]
    attach: Callable[[Scan, bytes], Patch]
    signature_values: Callable[[Scan], tuple[bytes, ...]]
    add_timestamp: Callable[[Scan, int, bytes], Patch]
    strip: Callable[[Scan, frozenset[Dispensable]], Patch] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format as a record of functions.

    Attributes:
        name: Stable name, for example `authenticode-pe`; stands in requests and log entries.
        title: For people.
        binding: How preimages relate to the artifact.
        certificate_in_preimage: Whether what is signed names the signer's certificate or key. If so, only that key will
            do, and a preimage is made anew when the key profile has got another certificate.
        detect: (first 4096 bytes, file name) -> is it this format? None if it is no format of files.
        scan: (stream, options) -> Scan. One pass, bounded memory. Raises MalformedInputError,
            UnsupportedInputError.
        preimage: (scan, chain leaf first as DER, options) -> Preimage.
        parse_preimage: Preimage -> PreimageFacts. Accepts only what re-encodes to the same bytes. Raises
            MalformedInputError.
        embed: (scan, Signed) -> Patch.
        verify: (stream, anchors, at) -> one report for each signature in the file; never raises for a signature
            that does not hold, only MalformedInputError for a file that cannot be read. Empty if unsigned.
        edits: What can be done without a key; None if nothing can.
    """

    name: str
    title: str
    binding: Binding
    certificate_in_preimage: bool
    detect: Callable[[bytes, str], bool] | None
    scan: Callable[[BinaryIO, SignOptions], Scan]
    preimage: Callable[[Scan, tuple[bytes, ...], SignOptions], Preimage]
    parse_preimage: Callable[[Preimage], PreimageFacts]
    embed: Callable[[Scan, Signed], Patch]
    verify: Callable[[BinaryIO, TrustAnchors, datetime], tuple[SignatureReport, ...]]
    edits: Edits | None = None
