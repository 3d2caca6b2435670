# SPDX-License-Identifier: Apache-2.0
"""Anchors in a log: having one made, and judging those that stand there on the way through the log."""

import base64
import binascii
import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Final

from privyseal.client.config import ClientConfig
from privyseal.client.hub_cell import hub_cell
from privyseal.client.log import PublicLog
from privyseal.errors import LogIntegrityError, MalformedInputError, VerificationError
from privyseal.pki import oids, tsp, x509
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.entry import Anchor, Entry
from privyseal.wire.api import AnchorView, decode_body

__all__ = ["AnchorCheck", "Anchored", "request_anchor"]


def request_anchor(config: ClientConfig) -> AnchorView:
    """Have the hub anchor its newest checkpoint.

    Raises:
        PrivysealError: what the hub said, or why it could not be asked.
    """
    return decode_body(hub_cell(config).request("POST", "/v1/anchors", b""), AnchorView)


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """An anchor that holds.

    Attributes:
        index: Of its entry.
        size: What it anchors.
        gen_time: What the TSA states; None if the token does not stand in the entry.
        subject: The TSA; empty if the token was not judged.
    """

    index: int
    size: int
    gen_time: dt.datetime | None
    subject: str = ""


class AnchorCheck:
    """A follower that judges each anchor: its imprint and token; with roots also the token's signature and path.

    Attributes:
        count: How many there were.
        newest: The last one.
    """

    def __init__(self, log: PublicLog, roots: tuple[bytes, ...] = ()) -> None:
        self._log: Final = log
        self._roots: Final = roots
        self.count = 0
        self.newest: Anchored | None = None

    def follow(self, _check: LogCheck, index: int, entry: Entry | None) -> None:
        """Judge an anchor; size and root were held against the log already.

        Raises:
            LogIntegrityError: `log.anchor` if it does not say what its entry says.
            VerificationError: `log.anchor_token` if the token is not to be believed.
        """
        if isinstance(entry, Anchor):
            self.count += 1
            self.newest = self._judge(index, entry)

    def finish(self, _checkpoint: Checkpoint) -> None:
        """Nothing is left to be said."""

    def _judge(self, index: int, entry: Anchor) -> Anchored:
        text = Checkpoint(origin=self._log.origin, size=entry.size, root=bytes.fromhex(entry.root)).text
        imprint = hashlib.sha256(text.encode())
        if entry.imprint != imprint.hexdigest():
            raise _wrong(index, "its imprint is not that of the checkpoint that it names")
        if not entry.der:
            return Anchored(index=index, size=entry.size, gen_time=None)
        try:
            token = base64.b64decode(entry.der, validate=True)
            info = tsp.parse_token(token)
        except (binascii.Error, ValueError, MalformedInputError) as error:
            raise _wrong(index, f"it holds no timestamp token: {error}") from error
        if hashlib.sha256(token).hexdigest() != entry.token:
            raise _wrong(index, "its token is not the one whose hash it names")
        if (info.digest_algorithm, info.imprint) != (oids.DIGEST_OIDS["sha256"], imprint.digest()):
            raise _wrong(index, "its token was made over something else")
        subject = self._believe(index, entry, token) if self._roots else ""
        return Anchored(index=index, size=entry.size, gen_time=info.gen_time, subject=subject)

    def _believe(self, index: int, entry: Anchor, token: bytes) -> str:
        try:
            signed = tsp.open_token(token)
            leaf = signed.certificate
            x509.build_path(leaf.der, signed.certificates, self._roots, signed.info.gen_time, oids.EKU_TIME_STAMPING)
        except (MalformedInputError, VerificationError) as error:
            raise VerificationError(
                "log.anchor_token",
                f"entry {index}: the timestamp token of this anchor is not to be believed: {error}",
                hint="if another TSA made it, name its root as well: --tsa-trust",
            ) from error
        if hashlib.sha256(leaf.der).hexdigest() != entry.tsa:
            raise _wrong(index, "its token is by another TSA than it names")
        return leaf.subject


def _wrong(index: int, why: str) -> LogIntegrityError:
    return LogIntegrityError("log.anchor", f"entry {index}: {why}")
