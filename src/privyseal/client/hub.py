# SPDX-License-Identifier: Apache-2.0
"""The hub's API as calls: profiles, requests, status."""

from collections.abc import Iterator
from typing import Final, TypeVar
from urllib.parse import urlencode

import msgspec

from privyseal.client.cell import Cell, web_cell
from privyseal.client.config import ClientConfig
from privyseal.client.hub_cell import hub_cell
from privyseal.client.time_limit import Deadline
from privyseal.errors import ConfigError, MalformedInputError, UnavailableError
from privyseal.identity.bundle import TrustBundle
from privyseal.identity.trust import PinnedTrust
from privyseal.wire.api import (
    HubStatus,
    ItemView,
    ProfileView,
    RequestView,
    SignatureRequest,
    decode_body,
)
from privyseal.wire.devices import DevicesView
from privyseal.wire.names import NAME_RULE, is_name
from privyseal.wire.queue import QueueView, RequestRecord, is_request_prefix, not_an_id

__all__ = ["HubClient"]

T = TypeVar("T")

_POLL_SECONDS: Final = 30
#: With another hub to go to; one that hangs is noticed when that and a few seconds are over.
_SHORT_POLL_SECONDS: Final = 5
#: Of a large request: items that are worth an answer, and how long they are waited for.
_ENOUGH_ITEMS: Final = 32
_PART_SECONDS: Final = 2
_ENDED: Final = frozenset({"signed", "failed"})


class HubClient:
    """One client's connection to its hub, or to one of the hubs of a cell; not safe to share between threads."""

    def __init__(self, config: ClientConfig, cell: Cell | None = None) -> None:
        """`cell` is whom to ask, if not all that the configuration names."""
        self._config = config
        self._cell = hub_cell(config) if cell is None else cell
        self._trust = PinnedTrust.load(config.identity.bundle)

    @property
    def bundle(self) -> TrustBundle:
        """The trust bundle in force here; `profile` looks whether authority keys have put another in its place."""
        return self._trust.bundle

    @property
    def sent_bytes(self) -> int:
        """Bodies sent so far."""
        return self._cell.sent_bytes

    @property
    def received_bytes(self) -> int:
        """Bodies received so far."""
        return self._cell.received_bytes

    def profile(self, name: str, deadline: Deadline | None = None) -> ProfileView:
        """A key profile.

        Args:
            name: Its name.
            deadline: Until when to try again what says "not now".

        Raises:
            ConfigError: `profile.unknown`. TokenError: what stands in the way at the agent. VerificationError:
                `bundle.successor`. And what every call may raise: UnavailableError, IdentityError.
        """
        if not is_name(name):
            raise ConfigError(
                "profile.unknown", f"{name!r} cannot be a key profile: {NAME_RULE}", hint="privyseal status lists them"
            )
        view = _decode(self._cell.request("GET", f"/v1/profiles/{name}", deadline=deadline), ProfileView)
        if view.bundle != self._trust.bundle.sha256:
            self._follow()
        return view

    def _follow(self) -> None:
        """Pin the hub's trust bundle, if it is a successor of the one that is pinned here."""
        try:
            self._trust.succeed(web_cell(self._config).request("GET", "/v1/bundle"))
        except OSError as error:
            raise ConfigError(
                "join.unwritable",
                f"the hub's new trust bundle cannot be kept at {error.filename}: {error.strerror}",
                hint="make the directory writable for this user",
            ) from error

    def status(self) -> HubStatus:
        """What the hub says of itself."""
        return _decode(self._cell.request("GET", "/v1/status"), HubStatus)

    def devices(self) -> DevicesView:
        """The USB devices that agents lend.

        Raises:
            VerificationError: `bundle.successor`. And what every call may raise.
        """
        view = _decode(self._cell.request("GET", "/v1/devices"), DevicesView)
        if view.bundle != self._trust.bundle.sha256:
            self._follow()
        return view

    def queue(self, profile: str = "", prefix: str = "") -> QueueView:
        """What waits and is under way at the hub, of all clients.

        Args:
            profile: Of this key profile alone.
            prefix: Requests whose ids begin so alone.

        Raises:
            MalformedInputError: `request.id`.
        """
        wanted = {name: value for name, value in (("profile", profile), ("id", prefix)) if value}
        view = _decode(self._cell.request("GET", f"/v1/queue?{urlencode(wanted)}"), QueueView)
        if not all(one.id.startswith(prefix) and is_request_prefix(one.id) for one in view.requests):
            raise _other_answer(prefix)
        return view

    def request(self, prefix: str) -> RequestRecord:
        """All that the hub knows of an own request, by the beginning of its id.

        Raises:
            MalformedInputError: `request.id`. ConfigError: `request.unknown`, `request.ambiguous`.
        """
        if not is_request_prefix(prefix):
            raise not_an_id(prefix)
        record = _decode(self._cell.request("GET", f"/v1/queue/{prefix}"), RequestRecord)
        if not record.progress.id.startswith(prefix) or not is_request_prefix(record.progress.id):
            raise _other_answer(prefix)
        return record

    def cancel(self, request_id: str) -> None:
        """Take back what the token has not begun of an own request; what it has signed stays signed.

        Raises:
            ConfigError: `request.unknown`.
        """
        self._cell.request("DELETE", f"/v1/signatures/{request_id}")

    def sign(self, request_id: str, body: SignatureRequest, deadline: Deadline) -> Iterator[RequestView]:
        """Submit a request; answers with its items as they end, part by part, until each has been answered for once.

        The request carries its own idempotency key: what is sent again, to this hub or to another one of the cell, is
        the same request. An answer without new items tells how many jobs stand before it.

        Raises:
            UnavailableError: `request.waiting` if the deadline comes first; what else was in the way until then.
            DeniedError, ConflictError, TokenError: what the hub said.
        """
        wanted = len(body.preimages)
        known = 0
        question = msgspec.json.encode(body)
        view = self._view("POST", "/v1/signatures?", question, wanted=wanted, deadline=deadline)
        while True:
            _check_view(view, request_id, known, wanted)
            yield view
            known += len(view.items)
            if known >= wanted:
                return
            if deadline.is_over(came=bool(view.items)):
                raise UnavailableError(
                    "request.waiting",
                    f"{wanted - known} of {wanted} signatures of request {request_id} are still to come: "
                    f"{view.position} jobs are before it",
                    hint="it stays in the queue until it expires; the same command goes on where this one stopped",
                )
            path = f"/v1/signatures/{request_id}?from={known}&"
            view = self._view("GET", path, None, wanted=wanted - known, deadline=deadline)

    def hand_in(self, body: SignatureRequest, deadline: Deadline) -> None:
        """Hand a request in, and wait for nothing that becomes of it.

        Raises:
            UnavailableError: what was in the way until the deadline. PrivysealError: what the hub said.
        """
        self._cell.request("POST", "/v1/signatures?wait=0", msgspec.json.encode(body), deadline=deadline)

    def outcome(self, request_id: str, *, wait_seconds: float) -> ItemView | None:
        """What became of the only item of an own request; None if it has not ended after so long.

        Raises:
            PrivysealError: what the hub said.
        """
        path = f"/v1/signatures/{request_id}?wait={wait_seconds:.3f}&enough=1"
        view = _decode(self._cell.request("GET", path, wait_seconds=wait_seconds), RequestView)
        _check_view(view, request_id, 0, 1)
        return next(iter(view.items), None)

    def _view(self, method: str, path: str, body: bytes | None, *, wanted: int, deadline: Deadline) -> RequestView:
        """A few items are waited for together; of many the first are worth having early."""
        poll_seconds = _SHORT_POLL_SECONDS if self._cell.has_others else _POLL_SECONDS
        enough, seconds = (wanted, poll_seconds) if wanted <= _ENOUGH_ITEMS else (_ENOUGH_ITEMS, _PART_SECONDS)
        wait_seconds = min(seconds, deadline.left_seconds)
        path += f"wait={wait_seconds:.3f}&enough={enough}"
        return _decode(
            self._cell.request(method, path, body, deadline=deadline, wait_seconds=wait_seconds), RequestView
        )


def _decode(data: bytes, kind: type[T]) -> T:
    """What is no answer of a hub (a proxy's page, for example) tells nothing of what became of a request."""
    try:
        return decode_body(data, kind)
    except MalformedInputError as error:
        raise UnavailableError(
            "hub.answer", f"what came from the hub's address is no answer of a hub: {error}"
        ) from error


def _other_answer(prefix: str) -> UnavailableError:
    return UnavailableError(
        "hub.answer",
        f"the hub answers for other requests than {prefix}…",
        hint="no honest hub does: tell its administrator",
    )


def _check_view(view: RequestView, request_id: str, known: int, wanted: int) -> None:
    """The view goes on where the last one ended: else items would be missed, taken twice, or asked for without end."""
    follows = view.id == request_id and view.first == known and len(view.items) <= wanted - known
    if not follows or any(item.state not in _ENDED for item in view.items):
        raise UnavailableError(
            "hub.answer",
            f"the hub answers for other items of request {request_id[:16]}… than those that it was asked for",
            hint="no honest hub does: tell its administrator; the same command goes on where this one stopped",
        )
