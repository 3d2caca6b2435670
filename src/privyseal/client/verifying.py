# SPDX-License-Identifier: Apache-2.0
"""`verify`: every signature of a file, and the receipt that belongs to one of them."""

import datetime as dt
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from privyseal.client.config import ClientConfig
from privyseal.client.files import open_source
from privyseal.client.quorum_file import load_policy
from privyseal.client.receipts import CheckedReceipt, check_receipt, match_receipt, read_receipt, receipt_path
from privyseal.errors import (
    ConfigError,
    MalformedInputError,
    PrivysealError,
    UnavailableError,
    UnsupportedInputError,
    VerificationError,
)
from privyseal.formats.model import Finding, Format, Severity, SignatureReport, TrustAnchors
from privyseal.formats.registry import HEAD_BYTES, detect_format
from privyseal.identity.bundle import TrustBundle, load_bundle
from privyseal.identity.system_roots import system_roots
from privyseal.ports.clock import Clock, system_clock
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.quorum import QuorumPolicy

__all__ = ["Verifier", "VerifyOptions", "VerifyReport", "judge_written", "read_roots", "trust_anchors", "verify_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """How to verify.

    Attributes:
        trust: PEM files with roots, beside those of the configuration and the system.
        receipt: The receipt's file; None looks for FILE.tlog-proof.
        bundle: A trust bundle to judge the receipt with, instead of the one that the configuration pins. No hub is
            asked then.
        offline: Ask no hub; otherwise the hub's log today is asked whether it still holds the entry.
        require_timestamp: A signature without a timestamp that holds does not hold either.
        require_receipt: A file without a receipt that holds does not verify.
        policy: Quorum policy that the receipt's checkpoint must meet by its cosignatures; then a receipt is required.
    """

    trust: tuple[Path, ...] = ()
    receipt: Path | None = None
    bundle: Path | None = None
    offline: bool = False
    require_timestamp: bool = False
    require_receipt: bool = False
    policy: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was found.

    Attributes:
        format: Empty if the file could not be read.
        receipt: None if there is none beside the file and none was asked for, or it was not judged.
        unjudged_receipt: A receipt that lies there and was not judged, or None.
        log_size: Size of the log that was asked; None offline or without a receipt.
        error: The first thing for which the file does not verify, or None.
    """

    path: Path
    format: str = ""
    signatures: tuple[SignatureReport, ...] = ()
    receipt: CheckedReceipt | None = None
    unjudged_receipt: Path | None = None
    log_size: int | None = None
    error: PrivysealError | None = None


def read_roots(files: tuple[Path, ...]) -> tuple[bytes, ...]:
    """Roots of these PEM files.

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
    return tuple(found)


def trust_anchors(files: tuple[Path, ...]) -> tuple[bytes, ...]:
    """Roots of these PEM files and of the system; raises as `read_roots`."""
    return tuple(dict.fromkeys((*read_roots(files), *system_roots())))


class Verifier:
    """Verifies files one after the other; roots, trust bundle and the way to the hub are read once, when needed."""

    def __init__(self, options: VerifyOptions, config: ClientConfig | None, clock: Clock = system_clock) -> None:
        self._options = options
        self._config = config
        self._clock = clock

    def verify(self, path: Path) -> VerifyReport:
        """Verify a file and its receipt; what does not hold stands in the report.

        Raises:
            LogIntegrityError: the log does not hold the receipt's entry any more.
            ConfigError: `file.missing`, `trust.malformed`; `receipt.no_bundle` if a receipt was asked for and there
                is no trust bundle to judge it with.
            MalformedInputError, VerificationError: the trust bundle or the quorum policy itself.
            UnavailableError, IdentityError: the hub cannot be asked.
        """
        report = VerifyReport(path=path)
        try:
            anchors = self._anchors
            with open_source(path) as source:
                chosen = detect_format(source.stream.read(HEAD_BYTES), str(path))
                report = replace(report, format=chosen.name)
                source.stream.seek(0)
                signatures = chosen.verify(source.stream, anchors, _now(self._clock))
        except (MalformedInputError, UnsupportedInputError) as error:
            return replace(report, error=error)
        except OSError as error:
            unreadable = MalformedInputError("file.unreadable", f"cannot read {path}: {error.strerror or error}")
            return replace(report, error=unreadable)
        if self._options.require_timestamp:
            signatures = tuple(map(_with_timestamp_required, signatures))
        report = replace(report, signatures=signatures, error=_first_error(path, signatures))
        return self._with_receipt(report)

    @cached_property
    def _anchors(self) -> TrustAnchors:
        configured = self._config.trust if self._config is not None else ()
        anchors = trust_anchors((*self._options.trust, *configured))
        return TrustAnchors(code_signing=anchors, time_stamping=anchors)

    @cached_property
    def _bundle(self) -> TrustBundle | None:
        if self._options.bundle is not None:
            return load_bundle(self._options.bundle)
        return None if self._config is None else self._config.load_bundle()

    @cached_property
    def _policy(self) -> QuorumPolicy | None:
        return None if self._options.policy is None else load_policy(self._options.policy)

    @cached_property
    def _check_extends(self) -> Callable[[Checkpoint], Checkpoint] | None:
        """The log to ask; a bundle that was given by hand may be of another hub than the configured one."""
        if self._options.offline or self._options.bundle is not None or self._config is None:
            return None
        from privyseal.client.log import LogReader  # noqa: PLC0415 - the network's modules take longer than a file

        return LogReader(self._config).check_extends

    def _with_receipt(self, report: VerifyReport) -> VerifyReport:
        options, policy = self._options, self._policy
        place = options.receipt or receipt_path(report.path)
        is_required = options.require_receipt or policy is not None
        if options.receipt is None and not place.is_file():
            if is_required and report.error is None:
                missing = f"{report.path} has no receipt at {place}"
                report = replace(report, error=VerificationError("receipt.missing", missing))
            return report
        if report.error is not None:
            return replace(report, unjudged_receipt=place)
        bundle = self._bundle
        if bundle is None and (policy is None or not policy.logs):
            if options.receipt is None and not is_required:
                return replace(report, unjudged_receipt=place)
            raise ConfigError(
                "receipt.no_bundle",
                f"the receipt {place} can only be judged with the trust bundle of its hub",
                hint="name it with --bundle, or set PRIVYSEAL_CONFIG to a client.toml that has joined that hub"
                if policy is None
                else "name it with --bundle, or name the log in the quorum policy",
            )
        try:
            receipt = check_receipt(read_receipt(place), bundle, policy)
            _match_one(receipt, report)
        except (MalformedInputError, VerificationError) as error:
            return replace(report, unjudged_receipt=place, error=error)
        return replace(report, receipt=receipt, log_size=self._size_today(receipt.checkpoint))

    def _size_today(self, checkpoint: Checkpoint) -> int | None:
        """The log that the hub shows today must extend the one that the receipt was made in."""
        if self._check_extends is None:
            return None
        try:
            return self._check_extends(checkpoint).size
        except UnavailableError as error:
            hint = "; ".join(filter(None, (error.hint, "--offline judges receipts without the hub")))
            raise type(error)(error.code, error.message, hint=hint) from error


def verify_file(
    path: Path, options: VerifyOptions, config: ClientConfig | None, clock: Clock = system_clock
) -> VerifyReport:
    """Verify one file and its receipt.

    Raises:
        MalformedInputError, UnsupportedInputError: the file.
        VerificationError: `file.unsigned`; the first problem of a signature; the receipt.
        LogIntegrityError, ConfigError, UnavailableError, IdentityError: see `Verifier.verify`.
    """
    report = Verifier(options, config, clock).verify(path)
    if report.error is not None:
        raise report.error
    return report


def judge_written(
    stream: BinaryIO, chosen: Format, signature_sha256: bytes, anchors: TrustAnchors, at: dt.datetime
) -> SignatureReport:
    """Judge a file that was just signed, before it replaces anything: all its signatures, and the new one among them.

    Returns:
        The report of the new signature, with its warnings and what Windows would say.

    Raises:
        MalformedInputError, UnsupportedInputError: the file cannot be read.
        VerificationError: `embed.missing` if the new signature is not in the file once; the first problem of any, but
            for the chains of signatures that were there before.
    """
    reports = chosen.verify(stream, anchors, at)
    ours = [report for report in reports if report.signature_sha256 == signature_sha256]
    for report in reports:
        for problem in report.problems:
            # Where a signature that was there before ends is for whoever made it; here its root need not be known.
            if report in ours or not problem.code.startswith("chain."):
                raise VerificationError(problem.code, problem.message, hint=problem.hint)
    if len(ours) != 1:
        raise VerificationError("embed.missing", f"the new signature is in the file {len(ours)} times")
    return ours[0]


def _now(clock: Clock) -> dt.datetime:
    return dt.datetime.fromtimestamp(clock() / 1000, dt.UTC)


def _with_timestamp_required(report: SignatureReport) -> SignatureReport:
    if report.timestamped_at is not None:
        return report
    missing = Finding(
        severity=Severity.PROBLEM,
        code="timestamp.required",
        message="the signature has no timestamp that holds, and one is required",
    )
    return replace(report, findings=(*report.findings, missing))


def _first_error(path: Path, signatures: tuple[SignatureReport, ...]) -> PrivysealError | None:
    if not signatures:
        return VerificationError("file.unsigned", f"{path} carries no signature")
    bad = next((report.problems[0] for report in signatures if report.problems), None)
    if bad is None:
        return None
    hint = "if you trust its root, name it: --trust ROOT.pem" if bad.code == "chain.untrusted" else bad.hint
    return VerificationError(bad.code, f"{path}: {bad.message}", hint=hint)


def _match_one(receipt: CheckedReceipt, report: VerifyReport) -> None:
    """The receipt must speak of one of the file's signatures.

    Raises:
        VerificationError: `receipt.mismatch`.
    """
    refusals: list[VerificationError] = []
    for signature in report.signatures:
        try:
            match_receipt(receipt, signature, report.format)
        except VerificationError as error:
            refusals.append(error)
        else:
            return
    raise refusals[0]
