# SPDX-License-Identifier: Apache-2.0
"""Requests for signatures: new ones are journalled before they are sent, those of an interrupted run are taken up."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.client.hub import HubClient
from privyseal.client.journal import KeptRequest, RequestJournal
from privyseal.client.placing import Answered
from privyseal.client.preparing import Prepared
from privyseal.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    MalformedInputError,
    UnsupportedInputError,
    VerificationError,
)
from privyseal.ports.clock import Clock
from privyseal.tlog.entry import ArtifactDigest
from privyseal.wire.api import SignatureItem, SignatureRequest
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.statement import (
    REQUEST_TYPE,
    ClaimedFile,
    RequestItem,
    RequestStatement,
    seal_request,
    statement_id,
)

__all__ = ["Requester"]

_REQUEST_LIFE_MS: Final = 3_600_000
_MAX_ITEMS: Final = 5_000
#: Preimages of one request together; the hub takes bodies of 64 MiB, of which base64 takes its part.
_MAX_PREIMAGE_BYTES: Final = 32 << 20

#: Refusals of a request as a whole: it was not taken, and the same bytes never will be.
_REFUSED: Final = (
    ConfigError,
    ConflictError,
    DeniedError,
    MalformedInputError,
    UnsupportedInputError,
    VerificationError,
)

#: Told how many jobs stand before those that are waited for.
Waiting = Callable[[int], None]


class Requester:
    """Asks one hub for signatures with one key profile."""

    def __init__(
        self,
        *,
        hub: HubClient,
        hub_name: str,
        profile: str,
        key: Ed25519PrivateKey,
        journal: RequestJournal,
        clock: Clock,
    ) -> None:
        self._hub = hub
        self._hub_name = hub_name
        self._profile = profile
        self._key = key
        self._journal = journal
        self._clock = clock
        self._open: dict[str, set[int]] = {}

    def ask(self, wanted: Sequence[Prepared], waiting: Waiting) -> Iterator[Answered]:
        """Answers in the order in which they come; each file that was asked for is answered for once.

        Raises:
            PrivysealError: what the hub says of a request as a whole, or that it cannot be reached.
        """
        missing = list(wanted)
        for kept in tuple(self._journal.open_requests()):
            if (kept.statement.hub, kept.statement.profile) == (self._hub_name, self._profile):
                yield from self._take_up(kept, missing, waiting)
        for part in _parts(missing):
            yield from self._ask_anew(part, waiting)

    def settled(self, answered: Answered) -> None:
        """The file is in place, or its item will never be signed; a request of which no other is left is forgotten."""
        left = self._open[answered.request_id]
        left.discard(answered.position)
        if not left:
            self._journal.forget(answered.request_id)

    def _take_up(self, kept: KeptRequest, missing: list[Prepared], waiting: Waiting) -> Iterator[Answered]:
        """Ask again with an earlier run's bytes for those files that they speak of; others stay in `missing`."""
        found = _match(kept, missing)
        if not found:
            return
        taken = {id(prepared) for prepared in found.values()}
        missing[:] = [prepared for prepared in missing if id(prepared) not in taken]
        left = dict(found)
        try:
            for answered in self._answers(kept.id, kept.body, found, waiting):
                del left[answered.position]
                if answered.item.state == "signed":
                    yield answered
                else:  # whoever signs again wants it tried again
                    missing.append(answered.prepared)
                    self.settled(answered)
        except _REFUSED:  # the hub never took it, and will not now
            missing.extend(left.values())
            self._journal.forget(kept.id)

    def _ask_anew(self, part: Sequence[Prepared], waiting: Waiting) -> Iterator[Answered]:
        now_ms = self._clock()
        statement = RequestStatement(
            hub=self._hub_name,
            profile=self._profile,
            format=part[0].scanned.format.name,
            items=tuple(_item(prepared) for prepared in part),
            idempotency_key=secrets.token_hex(16),
            created=now_ms,
            not_after=now_ms + _REQUEST_LIFE_MS,
        )
        envelope = seal_request(statement, self._key)
        request_id = statement_id(parse_envelope(envelope, REQUEST_TYPE).payload)
        preimages = tuple(
            SignatureItem(signed=prepared.preimage.signed, detail=prepared.preimage.detail) for prepared in part
        )
        body = SignatureRequest(envelope=envelope, preimages=preimages)
        self._journal.keep(request_id, body)
        try:
            yield from self._answers(request_id, body, dict(enumerate(part)), waiting)
        except _REFUSED:
            self._journal.forget(request_id)
            raise

    def _answers(
        self, request_id: str, body: SignatureRequest, asked: dict[int, Prepared], waiting: Waiting
    ) -> Iterator[Answered]:
        self._open[request_id] = set(asked)
        for view in self._hub.sign(body):
            waiting(view.position)
            for position, item in enumerate(view.items, start=view.first):
                if position in asked:
                    yield Answered(
                        request_id=request_id,
                        position=position,
                        prepared=asked[position],
                        item=item,
                        chain=view.chain,
                    )


def _match(kept: KeptRequest, missing: Sequence[Prepared]) -> dict[int, Prepared]:
    """Which items of a kept request ask for the very bytes that these files need signed."""
    same: defaultdict[str, list[Prepared]] = defaultdict(list)
    for prepared in reversed(missing):
        if prepared.scanned.format.name == kept.statement.format:
            same[prepared.preimage_sha256].append(prepared)
    return {
        position: same[item.preimage].pop()
        for position, item in enumerate(kept.statement.items)
        if same.get(item.preimage)
    }


def _item(prepared: Prepared) -> RequestItem:
    scanned = prepared.scanned
    artifact = scanned.scan.artifact
    return RequestItem(
        preimage=prepared.preimage_sha256,
        artifact=ArtifactDigest(alg=artifact.algorithm, digest=artifact.digest.hex()),
        claimed=ClaimedFile(name=scanned.work.path.name, sha256=scanned.file_sha256, size=scanned.scan.size_bytes),
    )


def _parts(wanted: Sequence[Prepared]) -> Iterator[list[Prepared]]:
    """One request a format, and more only where the hub would not take it."""
    by_format: defaultdict[str, list[Prepared]] = defaultdict(list)
    for prepared in wanted:
        by_format[prepared.scanned.format.name].append(prepared)
    for same in by_format.values():
        part: list[Prepared] = []
        room = _MAX_PREIMAGE_BYTES
        for prepared in same:
            size_bytes = len(prepared.preimage.signed) + len(prepared.preimage.detail)
            if part and (len(part) == _MAX_ITEMS or size_bytes > room):
                yield part
                part, room = [], _MAX_PREIMAGE_BYTES
            part.append(prepared)
            room -= size_bytes
        yield part
