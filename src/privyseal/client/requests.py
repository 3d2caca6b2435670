# SPDX-License-Identifier: Apache-2.0
"""Requests for signatures: new ones are journalled before they are sent, those of an interrupted run are taken up."""

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.client.answers import Answered, Wanted, WantedT, is_by_wanted_key
from privyseal.client.hub import HubClient
from privyseal.client.journal import KeptRequest, RequestJournal
from privyseal.client.time_limit import Deadline, TimeLimit
from privyseal.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    MalformedInputError,
    UnavailableError,
    UnsupportedInputError,
    VerificationError,
)
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.clock import Clock
from privyseal.tlog.entry import ArtifactDigest
from privyseal.wire.api import SignatureItem, SignatureRequest
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.statement import (
    REQUEST_TYPE,
    RequestItem,
    RequestStatement,
    seal_request,
    statement_id,
)

__all__ = ["Requester", "life_seconds"]

#: How long a new request makes sense if nothing is said, by its class: nightly work is ready in the morning.
_LIFE_SECONDS: Final = {"nightly": 12 * 3600.0}
_USUAL_LIFE_SECONDS: Final = 3600.0
_MOST_LIFE_SECONDS: Final = 366 * 86_400.0
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

_WAITS: Final = "request.waiting"

#: Told how many jobs stand before those that are waited for.
Waiting = Callable[[int], None]


def life_seconds(priority: str, limit: TimeLimit, longest_seconds: float) -> float:
    """For how long a new request makes sense: as long as somebody waits for it, and as is usual for its class.

    A time that a person gave for all of it (`--timeout`) counts as it is: the hub says if that is too long for it.
    """
    usual = max(_LIFE_SECONDS.get(priority, _USUAL_LIFE_SECONDS), limit.seconds)
    life = min(usual, max(longest_seconds, 1.0))
    return min(max(life, limit.seconds) if limit.in_all else life, _MOST_LIFE_SECONDS)


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
        priority: str = "normal",
    ) -> None:
        """`priority` is that of new requests: `release`, `normal` or `nightly`."""
        self._hub = hub
        self._hub_name = hub_name
        self._profile = profile
        self._key = key
        self._journal = journal
        self._clock = clock
        self._priority = priority
        self._open: dict[str, set[int]] = {}
        #: How long the hub lets a request wait, if it has said so.
        self.longest_seconds = _USUAL_LIFE_SECONDS

    def ask(
        self, wanted: Sequence[WantedT], deadline: Deadline, waiting: Waiting = lambda _: None
    ) -> Iterator[Answered[WantedT]]:
        """Answers in the order in which they come; each file that was asked for is answered for once.

        Raises:
            UnavailableError: `request.waiting` if the deadline came first; then all has been handed in.
            PrivysealError: what the hub says of a request as a whole, or that it cannot be reached.
        """
        missing = list(wanted)
        late: list[UnavailableError] = []
        for kept in self._journal.open_requests():
            if self._is_own(kept):
                yield from _until_late(self._take_up(kept, missing, deadline, waiting), late)
        for part in _parts(missing):
            yield from _until_late(self._ask_anew(part, deadline, waiting), late)
        if late:
            raise UnavailableError(_WAITS, "; ".join(error.message for error in late), hint=late[0].hint)

    def settled(self, answered: Answered[WantedT]) -> None:
        """The file is in place, or its item will never be signed; a request of which no other is left is forgotten."""
        left = self._open[answered.request_id]
        left.discard(answered.position)
        if not left:
            self._journal.forget(answered.request_id)

    def _is_own(self, kept: KeptRequest) -> bool:
        """Of this hub, key profile and request key; who joins again has another key."""
        where = (kept.statement.hub, kept.statement.profile)
        return where == (self._hub_name, self._profile) and kept.id == self._id(kept.body.envelope)

    def _id(self, envelope: bytes) -> str:
        request_key = self._key.public_key().public_bytes_raw()
        return statement_id(request_key, parse_envelope(envelope, REQUEST_TYPE).payload)

    def _take_up(
        self, kept: KeptRequest, missing: list[WantedT], deadline: Deadline, waiting: Waiting
    ) -> Iterator[Answered[WantedT]]:
        """Ask again with an earlier run's bytes for those files that they speak of; others stay in `missing`."""
        found = _match(kept, missing)
        if not found:
            return
        taken = {id(one) for one in found.values()}
        missing[:] = [one for one in missing if id(one) not in taken]
        left = dict(found)
        try:
            for answered in self._answers(kept.id, kept.body, found, deadline, waiting):
                del left[answered.position]
                if answered.item.state == "signed" and is_by_wanted_key(answered):
                    yield answered
                else:  # whoever signs again wants it tried again
                    missing.append(answered.wanted)
                    self.settled(answered)
        except _REFUSED:  # the hub never took it, and will not now
            missing.extend(left.values())
            self._journal.forget(kept.id)

    def _ask_anew(self, part: Sequence[WantedT], deadline: Deadline, waiting: Waiting) -> Iterator[Answered[WantedT]]:
        now_ms = self._clock()
        seconds = life_seconds(self._priority, deadline.limit, self.longest_seconds)
        statement = RequestStatement(
            hub=self._hub_name,
            profile=self._profile,
            format=part[0].format_name,
            items=tuple(_item(one) for one in part),
            idempotency_key=secrets.token_hex(16),
            created=now_ms,
            not_after=now_ms + int(seconds * 1000),
        )
        envelope = seal_request(statement, self._key)
        request_id = self._id(envelope)
        preimages = tuple(SignatureItem(signed=one.preimage.signed, detail=one.preimage.detail) for one in part)
        body = SignatureRequest(envelope=envelope, preimages=preimages, priority=self._priority, key=_only_key(part[0]))
        self._journal.keep(request_id, body)
        try:
            yield from self._answers(request_id, body, dict(enumerate(part)), deadline, waiting)
        except _REFUSED:
            self._journal.forget(request_id)
            raise

    def _answers(
        self,
        request_id: str,
        body: SignatureRequest,
        asked: dict[int, WantedT],
        deadline: Deadline,
        waiting: Waiting,
    ) -> Iterator[Answered[WantedT]]:
        # Also what nobody asks for now: another run may have left it for files that come again later.
        self._open[request_id] = set(range(len(body.preimages)))
        for view in self._hub.sign(request_id, body, deadline):
            waiting(view.position)
            for position, item in enumerate(view.items, start=view.first):
                if position in asked:
                    yield Answered(
                        request_id=request_id,
                        position=position,
                        wanted=asked[position],
                        item=item,
                        named_chain=view.chains[item.chain] if item.chain < len(view.chains) else (),
                    )


def _only_key(wanted: Wanted) -> str:
    """SHA-256 of the only public key that will do, in hex; empty if any of the profile will."""
    return hashlib.sha256(parse_certificate(wanted.chain[0]).spki).hexdigest() if wanted.is_key_fixed else ""


def _until_late(answers: Iterator[Answered[WantedT]], late: list[UnavailableError]) -> Iterator[Answered[WantedT]]:
    """A request that waits does not keep the next one from being handed in."""
    try:
        yield from answers
    except UnavailableError as error:
        if error.code != _WAITS:
            raise
        late.append(error)


def _match(kept: KeptRequest, missing: Sequence[WantedT]) -> dict[int, WantedT]:
    """Which items of a kept request ask for the very bytes that these files need signed."""
    same: defaultdict[str, list[WantedT]] = defaultdict(list)
    for one in reversed(missing):
        if one.format_name == kept.statement.format:
            same[_preimage_sha256(one)].append(one)
    return {
        position: same[item.preimage].pop()
        for position, item in enumerate(kept.statement.items)
        if same.get(item.preimage)
    }


def _preimage_sha256(wanted: Wanted) -> str:
    return hashlib.sha256(wanted.preimage.signed).hexdigest()


def _item(wanted: Wanted) -> RequestItem:
    artifact = wanted.artifact
    return RequestItem(
        preimage=_preimage_sha256(wanted),
        artifact=ArtifactDigest(alg=artifact.algorithm, digest=artifact.digest.hex()),
        claimed=wanted.claimed,
    )


def _parts(wanted: Sequence[WantedT]) -> Iterator[list[WantedT]]:
    """One request a format, and more only where the hub would not take it."""
    by_format: defaultdict[str, list[WantedT]] = defaultdict(list)
    for one in wanted:
        by_format[one.format_name].append(one)
    for same in by_format.values():
        part: list[WantedT] = []
        room = _MAX_PREIMAGE_BYTES
        for one in same:
            size_bytes = len(one.preimage.signed) + len(one.preimage.detail)
            if part and (len(part) == _MAX_ITEMS or size_bytes > room):
                yield part
                part, room = [], _MAX_PREIMAGE_BYTES
            part.append(one)
            room -= size_bytes
        yield part
