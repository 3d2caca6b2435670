# SPDX-License-Identifier: Apache-2.0
"""From the hub's answer to the signed file: check it, timestamp it, embed it, verify what was written, rename."""

import datetime as dt
import hashlib
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from privyseal.client.answers import Answered, check_answer
from privyseal.client.files import Draft, draft_beside, reopen_source, write_signed
from privyseal.client.preparing import Prepared, scan_file
from privyseal.client.receipts import CheckedReceipt, match_receipt, receipt_path
from privyseal.client.timestamping import Timestamper
from privyseal.client.verifying import judge_written
from privyseal.errors import MalformedInputError, UnsupportedInputError, VerificationError
from privyseal.formats.model import SignatureReport, Signed, SignOptions, TrustAnchors
from privyseal.identity.bundle import TrustBundle
from privyseal.ports.clock import Clock

__all__ = ["Placer", "SignedFile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedFile:
    """What came of signing a file.

    Attributes:
        windows: What Windows would say of it, as a sentence.
        warnings: What the verifier noticed although the signature holds.
        test: The key profile is one for trying things out.
    """

    source: Path
    target: Path
    receipt_path: Path
    format: str
    artifact: str
    subject: str
    spki_sha256: str
    log_index: int
    log_size: int
    timestamped_at: dt.datetime | None
    windows: str
    warnings: tuple[str, ...]
    test: bool


class Placer:
    """Puts signatures into files; safe to use from several threads."""

    def __init__(
        self,
        *,
        bundle: TrustBundle,
        options: SignOptions,
        timestamper: Timestamper | None,
        test: bool,
        clock: Clock,
        certificates: tuple[bytes, ...] = (),
    ) -> None:
        self._bundle = bundle
        self._options = options
        self._certificates = certificates
        self._timestamper = timestamper
        self._test = test
        self._clock = clock

    def place(self, answered: Answered[Prepared], filled: Draft | None = None) -> SignedFile:
        """Put one signature into its file.

        Args:
            answered: Believed only as far as it proves itself.
            filled: A draft beside the target that holds the whole original already.

        Raises:
            PrivysealError: whatever went wrong; then the target is as it was.
        """
        receipt = check_answer(answered, self._bundle)
        token = self._token(answered)
        try:
            report = self._embed(answered, receipt, token, filled)
        except MalformedInputError as error:
            again = self._read_again(answered) if error.code == "file.changed" else None
            if again is None:
                raise
            report = self._embed(again, receipt, token)
        scanned = answered.wanted.scanned
        artifact = scanned.scan.artifact
        return SignedFile(
            source=scanned.work.path,
            target=scanned.work.target,
            receipt_path=receipt_path(scanned.work.target),
            format=scanned.format.name,
            artifact=f"{artifact.algorithm}:{artifact.digest.hex()}",
            subject=report.subject,
            spki_sha256=report.spki_sha256.hex(),
            log_index=receipt.index,
            log_size=receipt.checkpoint.size,
            timestamped_at=report.timestamped_at,
            windows=report.windows,
            warnings=tuple(finding.message for finding in report.warnings),
            test=self._test,
        )

    def _read_again(self, answered: Answered[Prepared]) -> Answered[Prepared] | None:
        """The file as it is now, if the very same is to be signed: another run may have put its signature into it."""
        before = answered.wanted
        try:
            now = scan_file(before.scanned.work, self._options, whole=False).prepare(
                before.chain, self._options, is_chosen=before.is_key_fixed
            )
        except (MalformedInputError, UnsupportedInputError):
            return None
        return replace(answered, wanted=now) if now.preimage == before.preimage else None

    def _embed(
        self, answered: Answered[Prepared], receipt: CheckedReceipt, token: bytes, filled: Draft | None = None
    ) -> SignatureReport:
        prepared, scanned = answered.wanted, answered.wanted.scanned
        signed = Signed(
            preimage=prepared.preimage,
            signature=answered.item.signature,
            chain=(*answered.chain, *self._certificates),
            timestamp_token=token,
            placement=self._options.placement,
        )
        patch = scanned.format.embed(scanned.scan, signed)
        target = scanned.work.target
        with ExitStack() as open_files:
            source = open_files.enter_context(reopen_source(scanned.work.path, scanned.status))
            draft = filled or open_files.enter_context(draft_beside(target))
            written = open_files.enter_context(
                write_signed(
                    source,
                    patch,
                    draft,
                    receipt=answered.item.receipt.encode(),
                    receipt_path=receipt_path(target),
                    filled=filled is not None,
                )
            )
            report = self._verify(answered, written)
            match_receipt(receipt, report, scanned.format.name)
        return report

    def _token(self, answered: Answered[Prepared]) -> bytes:
        """Never go without one that was asked for: what the timestamper raises leaves the file as it was."""
        if self._timestamper is None:
            return b""
        return self._timestamper.token(answered.item.signature, answered.wanted.artifact.algorithm)

    def _verify(self, answered: Answered[Prepared], written: Path) -> SignatureReport:
        """Refuse to ship: what was written is judged as a stranger would judge it."""
        scanned = answered.wanted.scanned
        timestamper = self._timestamper
        anchors = TrustAnchors(
            code_signing=(answered.chain[-1],),
            time_stamping=() if timestamper is None else timestamper.anchors,
        )
        now = dt.datetime.fromtimestamp(self._clock() / 1000, dt.UTC)
        value = hashlib.sha256(answered.item.signature).digest()
        try:
            with written.open("rb") as stream:
                return judge_written(stream, scanned.format, value, anchors, now)
        except VerificationError as error:
            raise VerificationError(
                "embed.refused",
                f"{scanned.work.path}: the signed file does not verify ({error}); it was not written",
                hint="if a signature that was there before is broken, sign with --placement replace; "
                "else keep the input: this is a defect in Privyseal or in the certificate chain",
            ) from error
