# SPDX-License-Identifier: Apache-2.0
"""The parts of `privyseal status` about the queue: who uses which token, what waits, what was signed last."""

from collections.abc import Iterator
from typing import Final

from privyseal.cli.moments import clock_text, duration_text
from privyseal.cli.render import table
from privyseal.wire.api import ProfileStatus, TokenStatus
from privyseal.wire.queue import LastSignatures, TokenUse

__all__ = ["queue_lines", "signature_lines", "use_lines"]

_SHOWN: Final = 8


def use_lines(tokens: tuple[TokenStatus, ...], now_ms: int) -> Iterator[str]:
    """Whose items are at each token."""
    if not tokens:
        return
    rows = [("IN USE", "BY", "KEY PROFILE", "PRIORITY", "LEFT", "SINCE")]
    for token in tokens:
        name = f"{token.agent}/{token.token}"
        elsewhere = " (lease elsewhere)" if token.lease == "elsewhere" else ""
        if not token.users:
            rows.append((name, "another hub process" + elsewhere if elsewhere else "nobody", "", "", "", ""))
        rows += [_use(name if place == 0 else "", elsewhere, one, now_ms) for place, one in enumerate(token.users)]
    yield from table(rows)


def _use(name: str, elsewhere: str, use: TokenUse, now_ms: int) -> tuple[str, str, str, str, str, str]:
    since = "?" if use.since_ms is None else clock_text(use.since_ms, now_ms)
    return name, use.client + elsewhere, use.profile, use.priority, str(use.left), since


def queue_lines(profiles: tuple[ProfileStatus, ...], now_ms: int) -> Iterator[str]:
    """What stands before the tokens of each key profile."""
    rows = [("QUEUE", "WAITING", "UNDER WAY", "OLDEST", "DONE IN")]
    for one in profiles:
        queue = one.queue
        if queue.waiting or queue.under_way:
            waiting = ", ".join(f"{items} {priority}" for priority, items in queue.waiting.items())
            oldest = "-" if queue.oldest_ms is None else clock_text(queue.oldest_ms, now_ms)
            done = "?" if queue.eta_seconds is None else duration_text(queue.eta_seconds)
            rows.append((one.name, waiting or "-", str(queue.under_way), oldest, done))
    if profiles:
        yield from table(rows) if len(rows) > 1 else ("queue   empty",)


def signature_lines(signatures: tuple[LastSignatures, ...], now_ms: int) -> Iterator[str]:
    """What ended last, the newest first."""
    if not signatures:
        return
    rows = [("LAST", "CLIENT", "KEY PROFILE", "ITEMS", "OUTCOME")]
    rows += [
        (
            clock_text(one.at_ms, now_ms),
            one.client,
            one.profile,
            str(one.items),
            one.outcome + (f" [{one.code}]" if one.code else ""),
        )
        for one in signatures[:_SHOWN]
    ]
    yield from table(rows)
