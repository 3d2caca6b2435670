# SPDX-License-Identifier: Apache-2.0
"""`privyseal queue`."""

from collections.abc import Iterator

import msgspec

from privyseal.cli.authority import AsJson, Authority, administration
from privyseal.cli.moments import clock_text, duration_text, moment_text
from privyseal.cli.render import emit, table
from privyseal.client.config import load_client_config
from privyseal.client.hub import HubClient
from privyseal.errors import ConfigError, DeniedError
from privyseal.identity.authority import PriorityName
from privyseal.ports.clock import system_clock
from privyseal.wire.job_names import short_request
from privyseal.wire.queue import QueuedView, QueueView, RequestRecord, is_request_prefix, not_an_id

__all__ = ["cancel", "list", "move", "show"]

_ID_DIGITS = 64


def list(  # noqa: A001 - the command's name
    *, profile: str = "", as_json: AsJson = False, config: str = ""
) -> None:
    """What waits and is under way at the hub, of all clients, in the order in which it will be signed.

    Parameters
    ----------
    profile
        Of this key profile alone.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    found = HubClient(load_client_config(config)).queue(profile)
    emit(msgspec.to_builtins(found), _list_lines(found), as_json=as_json)


def _list_lines(found: QueueView) -> Iterator[str]:
    if not found.requests:
        yield "nothing waits, and nothing is under way"
        return
    now_ms = system_clock()
    rows = [("REQUEST", "CLIENT", "KEY PROFILE", "PRIORITY", "WAIT", "SENT", "BEFORE", "DONE IN", "SINCE")]
    rows += [
        (
            short_request(one.id),
            one.client,
            one.profile,
            _class(one),
            str(one.waiting),
            str(one.under_way),
            str(one.position),
            "?" if one.eta_seconds is None else duration_text(one.eta_seconds),
            clock_text(one.queued_ms, now_ms),
        )
        for one in found.requests
    ]
    yield from table(rows)
    if found.cut:
        yield f"and {found.total - len(found.requests)} requests more"


def _class(one: QueuedView) -> str:
    aged = one.counts_as not in ("", one.priority)
    return f"{one.priority} (as {one.counts_as})" if aged else one.priority


def show(request: str, /, *, as_json: AsJson = False, config: str = "") -> None:
    """One of this client's requests: where each item stands, its place, and what became of items that have ended.

    Parameters
    ----------
    request
        The request's id, or its first 8 or more digits.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    found = _own(HubClient(load_client_config(config)), request)
    emit(msgspec.to_builtins(found), _show_lines(found), as_json=as_json)


def _show_lines(found: RequestRecord) -> Iterator[str]:
    progress = found.progress
    yield f"request   {progress.id}"
    yield f"of        client {found.client}, for key profile {found.profile}, {found.format}"
    yield f"state     {_counts(found)}"
    if progress.state == "waiting":
        counts = f", counts as {found.counts_as} by now" if found.counts_as not in ("", progress.priority) else ""
        yield f"priority  {progress.priority}{counts}"
        done = "nobody knows when it is done" if progress.eta_seconds is None else _done_in(progress.eta_seconds)
        yield f"place     {progress.position} items before it; {done}"
    yield f"queued    {moment_text(found.queued_ms)}Z"
    if found.cancelled_ms is not None:
        yield f"cancelled {moment_text(found.cancelled_ms)}Z"
    yield f"expires   {moment_text(found.not_after_ms)}Z"
    if found.key:
        yield f"key       {found.key} (SHA-256)"
    yield f"made as   {found.idempotency_key} (idempotency key)"
    yield ""
    rows = [("ITEMS", "STATE", "TOKEN", "WHY")]
    rows += [
        (one.items, one.state, one.token or "-", f"{one.message} [{one.code}]" if one.code else "-")
        for one in found.items
    ]
    yield from table(rows)


def _done_in(seconds: float) -> str:
    return f"done in about {duration_text(seconds)}"


def _counts(found: RequestRecord) -> str:
    progress = found.progress
    counts = (
        (progress.signed, "signed"),
        (progress.failed, "failed"),
        (progress.under_way, "at a token or prepared"),
        (progress.waiting, "waiting"),
    )
    said = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f"{progress.state}: of {progress.total} items {said}"


def cancel(request: str, /, *, authority: Authority = (), as_json: AsJson = False, config: str = "") -> None:
    """Cancel a request: what the token has not begun of it is not signed. What was signed stays signed.

    Parameters
    ----------
    request
        The request's id, or its first 8 or more digits.
    authority
        Authority key file, for another client's request; may be repeated. Without it, this client's own.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    client = HubClient(load_client_config(config))
    if authority:
        request_id = _waiting(client, request)
        administration(authority, config).cancel_request(request_id)
        line = f"cancelled request {short_request(request_id)}…: what its token had not begun is not signed"
        emit({"request": request_id, "cancelled": True}, (line,), as_json=as_json)
        return
    before = _own(client, request)
    if not before.progress.waiting + before.progress.under_way:
        raise ConfigError(
            "request.ended",
            f"every item of request {before.progress.id!r} has ended: {_counts(before)}",
            hint="privyseal log find shows what was signed",
        )
    client.cancel(before.progress.id)
    after = client.request(before.progress.id)
    lines = (f"cancelled request {short_request(after.progress.id)}…", f"it is {_counts(after)}")
    emit({"request": after.progress.id, "cancelled": True} | msgspec.to_builtins(after), lines, as_json=as_json)


def move(
    request: str,
    /,
    *,
    priority: PriorityName,
    authority: Authority = (),
    as_json: AsJson = False,
    config: str = "",
) -> None:
    """Put what waits of a request into another class of the queue: sooner, or later.

    Parameters
    ----------
    request
        The request's id, or its first 8 or more digits.
    priority
        The class: next goes before everything else.
    authority
        Authority key file, may be repeated (default: authority.key beside the client configuration).
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    desk = administration(authority, config)
    request_id = _waiting(HubClient(load_client_config(config)), request)
    desk.move_request(request_id, priority)
    lines = (f"request {short_request(request_id)}… waits in class {priority} from now on",)
    emit({"request": request_id, "priority": priority}, lines, as_json=as_json)


def _own(client: HubClient, prefix: str) -> RequestRecord:
    try:
        return client.request(prefix)
    except ConfigError as error:
        if error.code != "request.unknown":
            raise
        others = client.queue(prefix=prefix).requests
        if not others:
            raise
        raise DeniedError(
            "request.not_own",
            f"request {short_request(others[0].id)}… is client {others[0].client!r}'s",
            hint="`privyseal queue list` tells of it what others may know; with --authority KEY it can be cancelled",
        ) from error


def _waiting(client: HubClient, prefix: str) -> str:
    """The whole id: what authority keys sign leaves nothing open."""
    if not is_request_prefix(prefix):
        raise not_an_id(prefix)
    if len(prefix) == _ID_DIGITS:
        return prefix
    found = client.queue(prefix=prefix)
    if not found.requests:
        raise ConfigError(
            "request.unknown",
            f"nothing waits or is under way whose id begins with {prefix!r}",
            hint="privyseal queue list",
        )
    if found.total > 1:
        raise ConfigError(
            "request.ambiguous",
            f"several requests wait whose ids begin with {prefix!r}",
            hint=f"give more digits: {found.requests[0].id[:24]}… or {found.requests[1].id[:24]}…",
        )
    return found.requests[0].id
