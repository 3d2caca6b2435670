# SPDX-License-Identifier: Apache-2.0
"""What GET /v1/events tells, one JSON object an event (server-sent events, `event:` is the object's `event`)."""

from typing import Final

import msgspec

from privyseal.errors import MalformedInputError

__all__ = [
    "AgentLinkEvent",
    "CertificateEvent",
    "GapEvent",
    "HubEvent",
    "JobEvent",
    "RecordedEvent",
    "TokenStateEvent",
    "decode_event",
    "encode_event",
    "event_name",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """Attribute `at`: when, by the hub's clock, in milliseconds since the epoch."""

    at: int


class JobEvent(_Event, frozen=True, tag="job"):
    """Jobs of the caller's own request have come to another state.

    Attributes:
        items: Which items of the request, such as `0-63`.
        state: `queued`, `intent` (the token may be used), `signed` or `failed`.
        code: Why it failed, or why it is queued again; as in docs/errors.
    """

    request: str
    profile: str
    items: str
    state: str
    code: str = ""


class TokenStateEvent(_Event, frozen=True, tag="token-state"):
    """An agent says of a token something else than before; fields as in the hub's status."""

    agent: str
    token: str
    state: str
    pin_state: str
    code: str = ""
    problem: str = ""
    hint: str = ""


class RecordedEvent(_Event, frozen=True, tag="recorded"):
    """An agent told what happened to a token, and it stands in the log.

    Attributes:
        index: Of the entry.
        kind: The entry's type: `token`, `pin`, `recover`, `custody`, `reconcile` or `freeze`.
        token: Serial number of the token.
        detail: What else the entry says, by its fields' names (see docs/log.md).
    """

    agent: str
    index: int
    kind: str
    token: str
    detail: dict[str, str | int | bool]


class AgentLinkEvent(_Event, frozen=True, tag="agent"):
    """An agent has dialled in, or its link is gone."""

    agent: str
    linked: bool


class CertificateEvent(_Event, frozen=True, tag="certificate"):
    """The certificate of a key profile ends soon, or has ended; fields as in the hub's status."""

    profile: str
    token: str
    subject: str
    not_after: str
    days: int
    level: str


class GapEvent(_Event, frozen=True, tag="gap"):
    """Events since `Last-Event-ID` are not kept any more, or the hub was started anew: look at its status."""


HubEvent = JobEvent | TokenStateEvent | RecordedEvent | AgentLinkEvent | CertificateEvent | GapEvent

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[HubEvent]] = msgspec.json.Decoder(HubEvent)


def event_name(event: HubEvent) -> str:
    """Its name in the stream."""
    return str(event.__struct_config__.tag)


def encode_event(event: HubEvent) -> bytes:
    """One line of JSON."""
    return _ENCODER.encode(event)


def decode_event(data: bytes) -> HubEvent:
    """Read an event.

    Raises:
        MalformedInputError: `body.malformed`, also for an event that a newer hub tells.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedInputError("body.malformed", f"not an event of a hub: {error}") from error
