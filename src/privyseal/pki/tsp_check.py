# SPDX-License-Identifier: Apache-2.0
"""Judging the answer to one's own timestamp request (RFC 3161 §2.2, §2.3, §2.4.2).

Stricter than what a token in somebody's file is held to: whoever asks can take another authority. What is asked of
the authority's certificate is what other verifiers will ask of it later.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.x509 import ExtendedKeyUsage, load_der_x509_certificate

from privyseal.errors import MalformedInputError, VerificationError
from privyseal.pki import oids, tsp, x509

__all__ = ["FreshToken", "check_response", "check_trust"]

#: How far genTime may lie from the clock of whoever asked.
CLOCK_TOLERANCE: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshToken:
    """A timestamp token that answers a request; nothing is said yet of a root that vouches for its signer.

    Attributes:
        token: ContentInfo, DER.
        certificate_sha256: SHA-256 of the authority's certificate.
    """

    token: bytes
    signed: tsp.SignedTst

    @property
    def gen_time(self) -> datetime:
        """The time that the authority states, UTC."""
        return self.signed.info.gen_time

    @property
    def certificate_sha256(self) -> bytes:
        """SHA-256 of the authority's certificate."""
        return hashlib.sha256(self.signed.certificate.der).digest()


def check_response(response: bytes, request: tsp.TimeStampReq, now: datetime) -> FreshToken:
    """Check everything about an answer but the path to a trusted root.

    Args:
        response: TimeStampResp.
        request: What was asked.
        now: The asking machine's time.

    Raises:
        MalformedInputError: if it cannot be read (`tsp.*`, `cms.*`, `der.*`).
        UnavailableError, UnsupportedInputError: `tsp.rejected`, `tsp.refused`: the authority did not grant it.
        VerificationError: `tsp.imprint`, `tsp.nonce`, `tsp.certificate_purpose`, `tsp.certificate_dates`,
            `tsp.clock`, and what `tsp.open_token` raises.
    """
    token = tsp.parse_response(response)
    signed = tsp.open_token(token)
    info = signed.info
    if (info.digest_algorithm, info.imprint) != (oids.DIGEST_OIDS[request.digest_algorithm], request.imprint):
        raise VerificationError("tsp.imprint", "the timestamp was made for another signature than this one")
    if info.nonce != request.nonce:
        raise VerificationError(
            "tsp.nonce", "the timestamp does not carry the nonce of the request: it may be an old one"
        )
    _check_certificate(signed.certificate, info.gen_time)
    _check_clock(info.gen_time, now)
    return FreshToken(token=token, signed=signed)


def check_trust(fresh: FreshToken, anchors: tuple[bytes, ...]) -> None:
    """Find a path from the authority's certificate to a trusted root.

    Raises:
        VerificationError: `chain.untrusted`, with the certificate at which the path ends, and its kin.
    """
    signed = fresh.signed
    leaf = signed.certificate
    try:
        x509.build_path(leaf.der, signed.certificates, anchors, fresh.gen_time, oids.EKU_TIME_STAMPING)
    except VerificationError as error:
        top = _top(signed)
        known = {one.subject_name for one in _readable(anchors)}
        if error.code != "chain.untrusted" or top.issuer_name in known:
            raise
        raise VerificationError(
            "chain.untrusted",
            f"everything about the timestamp holds, but no trusted root vouches for {leaf.subject}",
            hint=f"if you trust it, name its root certificate in `trust`; the known path ends at {top.subject}, "
            f"issued by {top.issuer}",
        ) from error


def _check_certificate(certificate: x509.Certificate, gen_time: datetime) -> None:
    extensions = load_der_x509_certificate(certificate.der).extensions
    alone = certificate.extended_key_usage == (oids.EKU_TIME_STAMPING,)
    if not alone or not extensions.get_extension_for_class(ExtendedKeyUsage).critical:
        raise VerificationError(
            "tsp.certificate_purpose",
            f"{certificate.subject} is not for time stamping alone: its extendedKeyUsage must be critical and name "
            "nothing else (RFC 3161 §2.3)",
        )
    if not certificate.not_before <= gen_time <= certificate.not_after:
        raise VerificationError(
            "tsp.certificate_dates",
            f"{certificate.subject} is valid from {certificate.not_before:%Y-%m-%d %H:%M:%SZ} until "
            f"{certificate.not_after:%Y-%m-%d %H:%M:%SZ}, but states {gen_time:%Y-%m-%d %H:%M:%SZ}",
        )


def _check_clock(gen_time: datetime, now: datetime) -> None:
    if abs(gen_time - now) > CLOCK_TOLERANCE:
        raise VerificationError(
            "tsp.clock",
            f"the timestamp states {gen_time:%Y-%m-%d %H:%M:%SZ}, this machine's clock says "
            f"{now:%Y-%m-%d %H:%M:%SZ}: one of both is wrong",
            hint="check this machine's clock",
        )


def _top(signed: tsp.SignedTst) -> x509.Certificate:
    """The certificate that stands highest on the way up by names."""
    issuers = {one.subject_name: one for one in _readable(signed.certificates[: x509.MAX_CERTIFICATES])}
    current = signed.certificate
    while (issuer := issuers.pop(current.issuer_name, None)) is not None:
        current = issuer
    return current


def _readable(ders: tuple[bytes, ...]) -> Iterator[x509.Certificate]:
    for encoded in ders:
        with contextlib.suppress(MalformedInputError):
            yield x509.parse_certificate(encoded)
