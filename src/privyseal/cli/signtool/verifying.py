# SPDX-License-Identifier: Apache-2.0
"""`signtool verify`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from privyseal.cli.signtool.arguments import Arguments
from privyseal.cli.signtool.talk import Talk, each_file
from privyseal.cli.signtool.values import certificate_lines, hash_of, number, usage_of
from privyseal.client.certificate_choice import name_contains, thumbprint
from privyseal.client.config import optional_client_config
from privyseal.client.verifying import Verifier, VerifyOptions, VerifyReport
from privyseal.errors import UnsupportedInputError, VerificationError
from privyseal.formats.model import SignatureKind, SignatureReport
from privyseal.pki.x509 import parse_certificate

__all__ = ["verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the flags ask of signatures; an empty attribute asks for nothing.

    Attributes:
        position: Of the one signature that is judged; None judges all.
        hashes: Of the signer's certificate; one of them must be it.
        authorities: Hashes of certificates above it; one of them must be there.
    """

    position: int | None
    hashes: tuple[str, ...]
    authorities: tuple[str, ...]
    root: str
    usages: tuple[str, ...]
    wants_timestamp: bool
    shows_page_hashes: bool


def verify(arguments: Arguments, talk: Talk) -> int:
    """Verify the first signature of each file, the one that /ds names, or with /all every one."""
    wanted = _Wanted(
        position=None if arguments.has("all") else number(arguments, "ds") if arguments.has("ds") else 0,
        hashes=tuple(hash_of(one, "sha1") for one in arguments.values("sha1")),
        authorities=tuple(hash_of(one, "ca") for one in arguments.values("ca")),
        root=arguments.value("r"),
        usages=tuple(usage_of(one) for one in arguments.values("u")),
        wants_timestamp=arguments.has("tw"),
        shows_page_hashes=arguments.has("ph"),
    )
    verifier = Verifier(VerifyOptions(offline=True), optional_client_config())
    if not arguments.has("pa"):
        talk.warning("the Windows driver policy, which holds without /pa, is not judged here; judged as with /pa")
    each_file(arguments, talk, lambda path: _verify(verifier.verify(path), wanted, talk))
    return talk.end("Verified")


def _verify(report: VerifyReport, wanted: _Wanted, talk: Talk) -> None:
    path = report.path
    if report.error is not None and not report.signatures:
        raise report.error
    judged = _judged(report, wanted)
    talk.tell(f"File: {path}", *_table(judged))
    for index, one in judged:
        talk.detail(*_details(index, one))
        if wanted.shows_page_hashes:
            talk.tell(f"Page hashes of signature {index}: {one.page_hashes.value}")
    for _, one in judged:
        _check(path, one, wanted)
    if report.error is not None and not any(one.problems for one in report.signatures):
        talk.warning(f"{path}: the receipt beside it does not count: {report.error}")
    for index, one in judged:
        for warning in _warnings(one, wanted):
            talk.warning(f"{path}: signature {index} {warning}")
    talk.done("", f"Successfully verified: {path}")


def _judged(report: VerifyReport, wanted: _Wanted) -> list[tuple[int, SignatureReport]]:
    there = list(enumerate(report.signatures))
    if wanted.position is None:
        return there
    if wanted.position >= len(there):
        raise UnsupportedInputError(
            "verify.no_such_signature",
            f"{report.path} has no signature at position {wanted.position}",
            hint=f"it has {len(there)} signatures; the first one is at position 0",
        )
    return there[wanted.position : wanted.position + 1]


def _check(path: Path, report: SignatureReport, wanted: _Wanted) -> None:
    for problem in report.problems:
        hint = "name its root under `trust` in client.toml" if problem.code == "chain.untrusted" else problem.hint
        raise VerificationError(problem.code, f"{path}: {problem.message}", hint=hint)
    hashes = [thumbprint(one) for one in report.chain]
    if wanted.hashes and hashes[0] not in wanted.hashes:
        raise VerificationError(
            "verify.signer", f"{path}: the signer's certificate has the SHA1 hash {hashes[0]}", hint="another is wanted"
        )
    if wanted.authorities and not set(hashes[1:]) & set(wanted.authorities):
        raise VerificationError(
            "verify.authority",
            f"{path}: no certificate above the signer's has a hash that is wanted",
            hint="there are " + (", ".join(hashes[1:]) or "none"),
        )
    root = parse_certificate(report.chain[-1]).subject
    if not name_contains(root, wanted.root):
        raise VerificationError(
            "verify.root",
            f"{path}: the chain ends at {root}",
            hint=f"wanted is a root with {wanted.root!r} in its name",
        )


def _warnings(report: SignatureReport, wanted: _Wanted) -> Iterator[str]:
    if wanted.wants_timestamp and report.timestamped_at is None:
        yield "has no timestamp"
    there = parse_certificate(report.chain[0]).extended_key_usage or ()
    for usage in wanted.usages:
        if usage not in there:
            yield f"is by a certificate without the extended key usage {usage}"


def _table(judged: list[tuple[int, SignatureReport]]) -> Iterator[str]:
    yield "Index  Algorithm  Timestamp"
    yield "=" * 40
    for index, one in judged:
        timestamp = "RFC3161" if one.timestamps else "Authenticode" if one.countersignatures else "None"
        yield f"{index:<7}{one.digest_algorithm:<11}{timestamp}"


def _details(index: int, report: SignatureReport) -> Iterator[str]:
    kind = "Primary Signature" if report.kind is SignatureKind.PRIMARY else f"{report.kind.value} signature"
    yield f"Signature Index: {index} ({kind})"
    yield f"Hash of file ({report.artifact.algorithm}): {report.artifact.digest.hex().upper()}"
    yield "Signing Certificate Chain:"
    for depth, encoded in enumerate(reversed(report.chain), start=1):
        yield from certificate_lines(encoded, "    " * depth)
        yield f"{'    ' * depth}SHA1 hash: {thumbprint(encoded).upper()}"
    if report.timestamped_at is None:
        yield "File is not timestamped."
    else:
        yield f"The signature is timestamped: {report.timestamped_at.isoformat()}"
    for finding in report.findings:
        yield f"{finding.severity.value}: {finding.message} [{finding.code}]"
    if report.windows:
        yield f"Windows: {report.windows}"
