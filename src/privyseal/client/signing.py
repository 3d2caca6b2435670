# SPDX-License-Identifier: Apache-2.0
"""Signing one file, step by step as DESIGN §4 has it."""

import concurrent.futures
import datetime as dt
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.client.config import ClientConfig
from privyseal.client.files import SourceFile, open_source, write_signed
from privyseal.client.hub import HubClient
from privyseal.client.journal import journalled
from privyseal.client.receipts import CheckedReceipt, check_receipt, match_receipt, receipt_path
from privyseal.errors import MalformedInputError, VerificationError, branch_named
from privyseal.formats.model import Format, Preimage, Scan, SignatureReport, Signed, SignOptions, TrustAnchors
from privyseal.formats.registry import detect_format, read_preimage
from privyseal.identity.bundle import TrustBundle
from privyseal.identity.keyfile import load_ed25519
from privyseal.pki.mechanism import hash_algorithm, mechanism_for, verify_digest
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.clock import Clock, system_clock
from privyseal.tlog.entry import ArtifactDigest
from privyseal.wire.api import ItemView, RequestView, SignatureItem
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.statement import (
    REQUEST_TYPE,
    ClaimedFile,
    RequestItem,
    RequestStatement,
    seal_request,
    statement_id,
)

__all__ = ["SignedFile", "Signer"]

_REQUEST_LIFE_MS: Final = 3_600_000
_HEAD_BYTES: Final = 4096
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedFile:
    """What came of signing a file."""

    source: Path
    target: Path
    receipt_path: Path
    format: str
    artifact: str
    subject: str
    spki_sha256: str
    log_index: int
    log_size: int
    sent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    format: Format
    scan: Scan
    preimage: Preimage
    chain: tuple[bytes, ...]
    file_sha256: str


class Signer:
    """Signs files with one key profile."""

    def __init__(self, config: ClientConfig, *, profile: str, clock: Clock = system_clock) -> None:
        self._config = config
        self._profile = profile
        self._clock = clock
        self._bundle: TrustBundle = config.load_bundle()
        self._key = load_ed25519(config.identity.request_key)
        self._hub = HubClient(config)

    def sign(self, path: Path, target: Path, options: SignOptions, step: Step = lambda _: None) -> SignedFile:
        """Sign a file; `target` may be the file itself.

        Raises:
            PrivysealError: whatever went wrong; then the target is as it was.
        """
        hash_algorithm(options.digest_algorithm)
        with open_source(path) as source:
            head = source.stream.read(_HEAD_BYTES)
            chosen = detect_format(head, str(path))
            step(f"asking hub {self._bundle.hub} for key profile {self._profile}")
            chain = self._hub.profile(self._profile).chain
            step("reading the file once")
            prepared = self._prepare(source, chosen, chain, options)
            step("waiting for the signature")
            view, sent_bytes = self._request(source, prepared)
            item = view.items[0]
            receipt = self._check(prepared, item, view)
            step("embedding and verifying")
            report = self._embed(source, target, prepared, item, receipt)
        return SignedFile(
            source=path,
            target=target,
            receipt_path=receipt_path(target),
            format=chosen.name,
            artifact=f"{prepared.scan.artifact.algorithm}:{prepared.scan.artifact.digest.hex()}",
            subject=report.subject,
            spki_sha256=report.spki_sha256.hex(),
            log_index=receipt.index,
            log_size=receipt.checkpoint.size,
            sent_bytes=sent_bytes,
        )

    def _prepare(self, source: SourceFile, chosen: Format, chain: tuple[bytes, ...], options: SignOptions) -> _Prepared:
        """Scan for the format's digest; a second core takes the whole file's SHA-256, which is only claimed."""
        try:
            with concurrent.futures.ThreadPoolExecutor(max_workers=1) as beside:
                whole = beside.submit(_file_sha256, source.path)
                source.stream.seek(0)
                scan = chosen.scan(source.stream, options)
                file_sha256 = whole.result()
        except (OSError, MalformedInputError) as error:
            source.check_unchanged()  # a file that became shorter is no malformed one
            if isinstance(error, OSError):
                raise MalformedInputError("file.unreadable", f"cannot read {source.path}: {error.strerror}") from error
            raise
        source.check_unchanged()
        return _Prepared(
            format=chosen,
            scan=scan,
            preimage=chosen.preimage(scan, chain, options),
            chain=chain,
            file_sha256=file_sha256,
        )

    def _request(self, source: SourceFile, prepared: _Prepared) -> tuple[RequestView, int]:
        now_ms = self._clock()
        preimage = prepared.preimage
        artifact = prepared.scan.artifact
        item = RequestItem(
            preimage=hashlib.sha256(preimage.signed).hexdigest(),
            artifact=ArtifactDigest(alg=artifact.algorithm, digest=artifact.digest.hex()),
            claimed=ClaimedFile(name=source.path.name, sha256=prepared.file_sha256, size=prepared.scan.size_bytes),
        )
        statement = RequestStatement(
            hub=self._bundle.hub,
            profile=self._profile,
            format=prepared.format.name,
            items=(item,),
            idempotency_key=secrets.token_hex(16),
            created=now_ms,
            not_after=now_ms + _REQUEST_LIFE_MS,
        )
        envelope = seal_request(statement, self._key)
        request_id = statement_id(parse_envelope(envelope, REQUEST_TYPE).payload)
        sent = SignatureItem(signed=preimage.signed, detail=preimage.detail)
        with journalled(self._config.identity.journal, request_id, envelope):
            view = self._hub.sign(envelope, (sent,))
        return view, len(envelope) + len(preimage.signed) + len(preimage.detail)

    def _check(self, prepared: _Prepared, item: ItemView, view: RequestView) -> CheckedReceipt:
        """Believe neither hub nor agent: signature with the certificate, receipt with the pinned log key."""
        if item.state != "signed":
            raise branch_named(item.branch)(item.code, item.message)
        if view.chain[:1] != prepared.chain[:1]:
            raise VerificationError(
                "certificate.changed", "the key profile's certificate changed meanwhile", hint="sign again"
            )
        facts = read_preimage(prepared.format.name, prepared.preimage)
        spki = parse_certificate(prepared.chain[0]).spki
        verify_digest(spki, mechanism_for(spki, facts.digest_algorithm), facts.digest, item.signature)
        receipt = check_receipt(item.receipt, self._bundle)
        match_receipt(
            receipt,
            SignatureReport(
                subject="",
                spki_sha256=hashlib.sha256(spki).digest(),
                signature_sha256=hashlib.sha256(item.signature).digest(),
                artifact=prepared.scan.artifact,
            ),
            prepared.format.name,
        )
        return receipt

    def _embed(
        self, source: SourceFile, target: Path, prepared: _Prepared, item: ItemView, receipt: CheckedReceipt
    ) -> SignatureReport:
        signed = Signed(preimage=prepared.preimage, signature=item.signature, chain=prepared.chain)
        patch = prepared.format.embed(prepared.scan, signed)
        anchors = TrustAnchors(code_signing=(prepared.chain[-1],))
        now = dt.datetime.fromtimestamp(self._clock() / 1000, dt.UTC)
        place = receipt_path(target)
        with write_signed(source, patch, target, receipt=item.receipt.encode(), receipt_path=place) as written:
            with written.open("rb") as stream:
                reports = prepared.format.verify(stream, anchors, now)
            signature = hashlib.sha256(item.signature).digest()
            ours = [report for report in reports if report.signature_sha256 == signature]
            bad = [report for report in reports if report.problem_code]
            if bad or len(ours) != 1:
                source.check_unchanged()  # the likely reason
                problem = f"{bad[0].problem} [{bad[0].problem_code}]" if bad else "the new signature is not in the file"
                raise VerificationError(
                    "embed.refused",
                    f"{source.path}: the signed file does not verify ({problem}); it was not written",
                    hint="keep the input: this is a defect in Privyseal or in the certificate chain",
                )
            match_receipt(receipt, ours[0], prepared.format.name)
        return ours[0]


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
