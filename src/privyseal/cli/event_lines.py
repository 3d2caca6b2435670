# SPDX-License-Identifier: Apache-2.0
"""A hub's events as lines for people."""

import datetime as dt

from privyseal.wire.events import (
    AgentLinkEvent,
    CertificateEvent,
    GapEvent,
    HubEvent,
    JobEvent,
    RecordedEvent,
    TokenStateEvent,
)
from privyseal.wire.job_names import short_request

__all__ = ["event_line"]


def event_line(event: HubEvent) -> str:
    """When, and what."""
    return f"{_moment(event.at)}  {_said(event)}"


def _moment(at_ms: int) -> str:
    try:
        return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):  # a hub may say anything
        return f"{at_ms} ms"


def _said(event: HubEvent) -> str:
    match event:
        case JobEvent():
            items = f"item {event.items}" if event.items.isdecimal() else f"items {event.items}"
            line = f"{event.profile}: {items} of request {short_request(event.request)}…"
            return f"{line} {event.state}{_why(event.code)}"
        case TokenStateEvent():
            return _of_token(event)
        case RecordedEvent():
            detail = " ".join(f"{name}={value}" for name, value in event.detail.items() if value != "")
            return f"token {event.token} at {event.agent}: {event.kind} {detail} (log entry {event.index})"
        case AgentLinkEvent():
            return f"agent {event.agent} " + ("linked" if event.linked else "lost: its key profiles are offline")
        case CertificateEvent():
            ends = "ended" if event.level == "expired" else f"ends in {event.days} days,"
            return f"{event.level}: certificate of {event.profile} ({event.token}) {ends} on {event.not_after[:10]}"
        case GapEvent():
            return "some events were missed: privyseal status shows how things are"


def _of_token(event: TokenStateEvent) -> str:
    pin = f", PIN {event.pin_state}" if event.pin_state not in ("", "ok") else ""
    line = f"token {event.token} at {event.agent} is {event.state}{pin}{_why(event.code)}"
    return f"{line}; next: {event.hint}" if event.hint else line


def _why(code: str) -> str:
    return f" [{code}]" if code else ""
