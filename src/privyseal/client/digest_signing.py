# SPDX-License-Identifier: Apache-2.0
"""Signing in three steps, of which only the second needs the hub: SignTool's /dg, /ds and /di.

`generate` writes FILE.dig, the digest that is to be signed, and FILE.p7u, the SignedData without its signature.
`PendingSigner` signs it: in the one form that hub and agent can read, if FILE.p7u has it, else as a bare digest.
`ingest` puts the signature into FILE.p7u and that into FILE. The forms are those that Microsoft documents: base64 for
digest and signature, PKCS #7 for the rest.
"""

import base64
import binascii
import datetime as dt
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.client.config import ClientConfig
from privyseal.client.digests import PreimageSigner, WantedPreimage
from privyseal.client.files import SourceFile, open_source, read_whole, write_edited, write_whole
from privyseal.client.receipts import check_receipt, match_receipt, receipt_path
from privyseal.client.signature_file import MAX_SIGNATURE_BYTES
from privyseal.client.timestamping import Timestamper
from privyseal.client.verifying import judge_written
from privyseal.errors import (
    ConfigError,
    MalformedInputError,
    UnsupportedInputError,
    VerificationError,
)
from privyseal.formats.authenticode import unsigned
from privyseal.formats.authenticode.unfinished import Unfinished, finish, make_unfinished, read_unfinished
from privyseal.formats.model import (
    Artifact,
    Binding,
    Format,
    SignatureReport,
    SignOptions,
    TrustAnchors,
)
from privyseal.formats.opaque import DIGEST
from privyseal.formats.opaque.digest import digest_preimage
from privyseal.formats.registry import FORMATS, HEAD_BYTES, detect_format, read_preimage
from privyseal.identity.bundle import TrustBundle
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.clock import Clock, system_clock
from privyseal.wire.statement import ClaimedFile

__all__ = ["PendingDigest", "PendingSigner", "SignedPending", "generate", "ingest", "read_pending"]

_MAX_TEXT_BYTES: Final = 64 * 1024
_AUTHENTICODE: Final = "authenticode-"


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDigest:
    """FILE.dig and the FILE.p7u beside it, which agree.

    Attributes:
        path: FILE.dig.
        text: Its content.
    """

    path: Path
    text: bytes
    unfinished: Unfinished


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPending:
    """What came of signing a digest.

    Attributes:
        format: Under which hub and agent knew it: `digest` if it was opaque to them.
    """

    target: Path
    receipt_path: Path
    format: str
    log_index: int


def generate(path: Path, directory: Path, chain: tuple[bytes, ...], options: SignOptions) -> tuple[Path, Path]:
    """Write DIRECTORY/FILE.p7u and DIRECTORY/FILE.dig; the file itself is only read.

    Args:
        path: The file that will be signed.
        directory: Where the two go.
        chain: DER, the signer's certificate first.
        options: What stands in the signature; its placement counts for nothing.

    Raises:
        PrivysealError: what is wrong with the file, or that the two cannot be written.
    """
    unsigned_path, digest_path = directory / f"{path.name}.p7u", directory / f"{path.name}.dig"
    with open_source(path) as source:
        chosen = _authenticode(source)
        try:
            preimage = chosen.preimage(chosen.scan(source.stream, options), chain, options)
        except OSError as error:
            raise MalformedInputError("file.unreadable", f"cannot read {path}: {error.strerror}") from error
        facts = chosen.parse_preimage(preimage)
        write_whole(unsigned_path, make_unfinished(facts, preimage, chain), source)
        write_whole(digest_path, base64.b64encode(facts.digest), source)
    return unsigned_path, digest_path


def read_pending(path: Path) -> PendingDigest:
    """Read FILE.dig and FILE.p7u.

    Raises:
        MalformedInputError: `digest.text`, `file.*`, or that FILE.p7u is not what it must be.
        VerificationError: `digest.mismatch` if they do not belong together.
    """
    if path.suffix.lower() != ".dig":
        raise UnsupportedInputError(
            "digest.name", f"{path} is not named FILE.dig", hint="name the file that signtool sign /dg wrote"
        )
    text = read_whole(path, _MAX_TEXT_BYTES)
    unsigned_path = path.with_suffix(".p7u")
    unfinished = _unfinished(unsigned_path)
    if _decoded(path, text) != unfinished.digest:
        raise VerificationError(
            "digest.mismatch",
            f"{path} is not the digest of the signed attributes in {unsigned_path}",
            hint="make both anew with signtool sign /dg, and let nothing change them",
        )
    return PendingDigest(path=path, text=text, unfinished=unfinished)


class PendingSigner:
    """Signs pending digests with one key profile."""

    def __init__(self, config: ClientConfig, *, profile: str, clock: Clock = system_clock) -> None:
        self._signer = PreimageSigner(config, profile=profile, clock=clock)

    def sign(self, pending: PendingDigest, chain: tuple[bytes, ...]) -> SignedPending:
        """Write FILE.dig.signed, and the receipt beside it.

        Args:
            pending: What to sign.
            chain: Of the key profile, DER; its first certificate must be the one that FILE.p7u names.

        Raises:
            DeniedError: `policy.opaque` if only a bare digest could be signed and the key profile does not allow that.
            PrivysealError: whatever else went wrong; nothing was written then.
        """
        wanted = _wanted(pending, chain)
        target = pending.path.with_name(pending.path.name + ".signed")
        with self._signer.sign(wanted) as (signed, receipt), open_source(pending.path) as source:
            write_whole(receipt_path(target), signed.receipt.encode(), source)
            write_whole(target, base64.b64encode(signed.signature), source)
        return SignedPending(
            target=target,
            receipt_path=receipt_path(target),
            format=wanted.format_name,
            log_index=receipt.index,
        )


def ingest(
    path: Path,
    directory: Path,
    anchors: TrustAnchors,
    *,
    timestamper: Timestamper | None = None,
    bundle: TrustBundle | None = None,
    clock: Clock = system_clock,
) -> SignatureReport:
    """Put DIRECTORY/FILE.dig.signed through DIRECTORY/FILE.p7u into FILE, instead of signatures that it has.

    Args:
        path: FILE; the receipt goes beside it if it speaks of FILE and not only of a digest.
        directory: Where the other two lie.
        anchors: Roots that the signature may end at, beside those within FILE.p7u: whoever made it chose them.
        timestamper: Where a timestamp comes from; then there is none without.
        bundle: The trust bundle with which a receipt is judged.
        clock: This machine's time.

    Raises:
        PrivysealError: whatever went wrong; then FILE is as it was.
    """
    signed_path = directory / f"{path.name}.dig.signed"
    signature = _decoded(signed_path, read_whole(signed_path, _MAX_TEXT_BYTES))
    unfinished = _unfinished(directory / f"{path.name}.p7u")
    content_info = finish(unfinished, signature)
    if timestamper is not None:
        token = timestamper.token(signature, unfinished.digest_algorithm)
        content_info = unsigned.set_timestamp(content_info, 0, token)
    with open_source(path) as source:
        chosen = _authenticode(source)
        edits = chosen.edits
        if edits is None:
            raise _not_authenticode(path)
        options = SignOptions(digest_algorithm=edits.digest_algorithm(content_info))
        steps = (lambda stream: edits.attach(chosen.scan(stream, options), content_info),)
        own = TrustAnchors(
            code_signing=(*anchors.code_signing, *_roots(unfinished)), time_stamping=anchors.time_stamping
        )
        with write_edited(source, steps, path) as written, written.open("rb") as stream:
            now = dt.datetime.fromtimestamp(clock() / 1000, dt.UTC)
            with _judging(path):
                report = judge_written(stream, chosen, hashlib.sha256(signature).digest(), own, now)
        _keep_receipt(source, chosen, signed_path, report, bundle)
    return report


def _authenticode(source: SourceFile) -> Format:
    chosen = detect_format(source.stream.read(HEAD_BYTES), str(source.path))
    if not chosen.name.startswith(_AUTHENTICODE):
        raise _not_authenticode(source.path)
    source.stream.seek(0)
    return chosen


def _not_authenticode(path: Path) -> UnsupportedInputError:
    return UnsupportedInputError(
        "digest.format", f"{path}: only Authenticode signatures can be made in steps", hint="privyseal sign"
    )


def _decoded(path: Path, text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedInputError(
            "digest.text", f"{path} is not base64 text", hint="the whole file is one base64 text, in ASCII"
        ) from error


def _unfinished(path: Path) -> Unfinished:
    try:
        return read_unfinished(read_whole(path, MAX_SIGNATURE_BYTES))
    except (MalformedInputError, UnsupportedInputError, VerificationError) as error:
        if str(path) in error.message:
            raise
        raise type(error)(error.code, f"{path}: {error.message}", hint=error.hint) from error


def _roots(unfinished: Unfinished) -> tuple[bytes, ...]:
    found = []
    for encoded in unfinished.certificates:
        try:
            certificate = parse_certificate(encoded)
        except MalformedInputError:
            continue
        if certificate.issuer_name == certificate.subject_name:
            found.append(encoded)
    return tuple(found)


def _wanted(pending: PendingDigest, chain: tuple[bytes, ...]) -> WantedPreimage:
    """In the form that shows most: the one of a format that binds the file's digest, else the bare digest."""
    unfinished = pending.unfinished
    leaf = parse_certificate(chain[0])
    if (leaf.issuer_name, leaf.serial_number) != (unfinished.issuer, unfinished.serial_number):
        raise ConfigError(
            "digest.other_certificate",
            f"{pending.path}: the .p7u beside it was made for another certificate than {leaf.subject}",
            hint="sign with the key profile of that certificate, or make the .p7u anew with signtool sign /dg",
        )
    claimed = ClaimedFile(
        name=pending.path.name, sha256=hashlib.sha256(pending.text).hexdigest(), size=len(pending.text)
    )
    for one in FORMATS:
        if one.binding is not Binding.BOUND:
            continue
        try:
            facts = read_preimage(one.name, unfinished.preimage)
        except (MalformedInputError, UnsupportedInputError):
            continue
        return WantedPreimage(
            format_name=one.name, preimage=unfinished.preimage, artifact=facts.artifact, claimed=claimed, chain=chain
        )
    artifact = Artifact(algorithm=unfinished.digest_algorithm, digest=unfinished.digest)
    return WantedPreimage(
        format_name=DIGEST.name, preimage=digest_preimage(artifact), artifact=artifact, claimed=claimed, chain=chain
    )


@contextmanager
def _judging(path: Path) -> Iterator[None]:
    try:
        yield
    except VerificationError as error:
        hint = "name its root under `trust` in client.toml" if error.code == "chain.untrusted" else error.hint
        message = f"{path}: with the signature, {error.message}; nothing was written"
        raise VerificationError(error.code, message, hint=hint) from error


def _keep_receipt(
    source: SourceFile, chosen: Format, signed_path: Path, report: SignatureReport, bundle: TrustBundle | None
) -> None:
    """A receipt of a bare digest says nothing of the file, and stays where it is."""
    place = receipt_path(signed_path)
    if bundle is None or not place.is_file():
        return
    text = read_whole(place, _MAX_TEXT_BYTES)
    try:
        match_receipt(check_receipt(text, bundle), report, chosen.name)
    except (MalformedInputError, VerificationError):
        return
    write_whole(receipt_path(source.path), text, source)
