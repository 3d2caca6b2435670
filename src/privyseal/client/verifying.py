# SPDX-License-Identifier: Apache-2.0
"""`verify`: every signature of a file, and the receipt that belongs to one of them."""

import datetime as dt
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from privyseal.client.config import ClientConfig
from privyseal.client.files import open_source
from privyseal.client.log import LogReader
from privyseal.client.receipts import CheckedReceipt, check_receipt, match_receipt, read_receipt, receipt_path
from privyseal.errors import ConfigError, PrivysealError, VerificationError
from privyseal.formats.model import SignatureReport, TrustAnchors
from privyseal.formats.registry import detect_format
from privyseal.identity.system_roots import system_roots
from privyseal.ports.clock import Clock, system_clock

__all__ = ["VerifyOptions", "VerifyReport", "trust_anchors", "verify_file"]

_HEAD_BYTES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """How to verify.

    Attributes:
        trust: PEM files with roots, beside those of the configuration and the system.
        receipt: The receipt's file; None looks for FILE.tlog-proof.
        offline: Ask no hub; otherwise the hub's log today is asked whether it still holds the entry.
    """

    trust: tuple[Path, ...] = ()
    receipt: Path | None = None
    offline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was found.

    Attributes:
        receipt: None if there is none beside the file and none was asked for.
        log_size: Size of the log that was asked; None offline or without a receipt.
    """

    path: Path
    format: str
    signatures: tuple[SignatureReport, ...]
    receipt: CheckedReceipt | None
    log_size: int | None


def trust_anchors(files: tuple[Path, ...]) -> tuple[bytes, ...]:
    """Roots of these PEM files and of the system.

    Raises:
        ConfigError: `file.missing`, `trust.malformed`.
    """
    found: dict[bytes, None] = {}
    for path in files:
        try:
            with warnings.catch_warnings():
                # Some public roots have serial numbers that RFC 5280 forbids; that is not ours to mend.
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except OSError as error:
            raise ConfigError("file.missing", f"cannot read trusted roots {path}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError("trust.malformed", f"{path} holds no PEM certificates") from error
        found.update(dict.fromkeys(certificate.public_bytes(Encoding.DER) for certificate in certificates))
    found.update(dict.fromkeys(system_roots()))
    return tuple(found)


def verify_file(
    path: Path, options: VerifyOptions, config: ClientConfig | None, clock: Clock = system_clock
) -> VerifyReport:
    """Verify a file and its receipt.

    Raises:
        MalformedInputError, UnsupportedInputError: the file.
        VerificationError: `file.unsigned`; the first problem of a signature; the receipt.
        LogIntegrityError: the log does not hold the receipt's entry any more.
        ConfigError: `receipt.no_bundle` if a receipt is to be checked and no trust bundle is pinned.
    """
    anchors = trust_anchors((*options.trust, *(config.trust if config is not None else ())))
    now = dt.datetime.fromtimestamp(clock() / 1000, dt.UTC)
    with open_source(path) as source:
        chosen = detect_format(source.stream.read(_HEAD_BYTES), str(path))
        source.stream.seek(0)
        reports = chosen.verify(source.stream, TrustAnchors(code_signing=anchors, time_stamping=anchors), now)
    if not reports:
        raise VerificationError("file.unsigned", f"{path} carries no signature")
    for report in reports:
        if report.problem_code:
            raise VerificationError(report.problem_code, f"{path}: {report.problem}", hint=_hint(report))
    receipt = _receipt(path, options, config, reports, chosen.name)
    log_size = None
    if receipt is not None and not options.offline and config is not None:
        log_size = _still_logged(receipt, config)
    return VerifyReport(path=path, format=chosen.name, signatures=reports, receipt=receipt, log_size=log_size)


def _hint(report: SignatureReport) -> str:
    if report.problem_code == "chain.untrusted":
        return "if you trust its root, name it: --trust ROOT.pem"
    return ""


def _receipt(
    path: Path,
    options: VerifyOptions,
    config: ClientConfig | None,
    reports: tuple[SignatureReport, ...],
    format_name: str,
) -> CheckedReceipt | None:
    place = options.receipt
    if place is None:
        place = receipt_path(path)
        if not place.is_file():
            return None
    if config is None:
        raise ConfigError(
            "receipt.no_bundle",
            f"the receipt {place} can only be judged with the trust bundle of its hub",
            hint="set PRIVYSEAL_CONFIG to a client.toml that has joined that hub",
        )
    receipt = check_receipt(read_receipt(place), config.load_bundle())
    refusals: list[PrivysealError] = []
    for report in reports:
        try:
            match_receipt(receipt, report, format_name)
        except VerificationError as error:
            refusals.append(error)
    if len(refusals) == len(reports):
        raise refusals[0]
    return receipt


def _still_logged(receipt: CheckedReceipt, config: ClientConfig) -> int:
    """The log that the hub shows today must extend the one that the receipt was made in."""
    return LogReader(config).check_extends(receipt.checkpoint).size
