# SPDX-License-Identifier: Apache-2.0
"""What `privyseal doctor` looks at for a client, in the order in which signing would meet it."""

import datetime as dt
import os
import tempfile
from functools import partial
from itertools import chain
from typing import Final

from privyseal.client.cell import Cell
from privyseal.client.config import ClientConfig, load_client_config
from privyseal.client.diagnosis_hub import HubProbe, hub_rows
from privyseal.client.diagnosis_tsa import check_tsa
from privyseal.client.hub import HubClient
from privyseal.client.hub_cell import hub_transports
from privyseal.client.log import LogReader
from privyseal.errors import ConfigError, DeniedError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.identity.diagnosis import check_account, check_files, check_tls_certificate, days_left, moment
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.clock import Clock
from privyseal.ports.diagnosis import Row, failed, look, passed, skipped, warned
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.wire.api import HubStatus, ProfileView
from privyseal.wire.devices import DeviceView

__all__ = ["client_rows"]

_REJOIN: Final = "ask an administrator for a new join code, then: privyseal client join"
_MTLS: Final = "hub, mtls listener"
_PROXIED: Final = "hub, behind a proxy"
_PROXY_MEANS: Final = "; the proxy sees names, digests and claims, and can sign nothing"
_DAYS_BEFORE_EXPIRY: Final = 30


def client_rows(config_path: str, clock: Clock) -> tuple[Row, ...]:
    """All rows of a client.

    Args:
        config_path: client.toml.
        clock: This machine's clock.
    """
    subject = "configuration"
    try:
        config = load_client_config(config_path)
        bundle = config.load_bundle()
    except PrivysealError as error:
        return (failed(subject, error), skipped("all else", "it needs the configuration", "mend the above first"))
    identity = config.identity
    local = (
        passed(subject, f"{config.path}: client {config.name} of hub {bundle.hub}"),
        check_account(identity.directory, f"privyseal doctor --config {config.path}"),
        *check_files(identity.directory, (identity.tls_key, identity.request_key)),
        check_tls_certificate(identity.tls_certificate, identity.tls_key, clock),
        look("request journal", lambda: _check_journal(config)),
        look("leftover requests", lambda: _check_leftovers(config)),
    )
    web = (hub_rows(HubProbe(url, bundle, clock), identity.tls_certificate, _REJOIN) for url in config.web_urls)
    return (*local, *chain.from_iterable(web), *_mtls_rows(config, clock), *_tsa_rows(config))


def _tsa_rows(config: ClientConfig) -> tuple[Row, ...]:
    if config.timestamp_via == "hub":
        step = "on the hub's machine, privyseal doctor --dir DIR asks each of them"
        return (skipped("TSA", "the hub asks the TSAs of its own configuration", step),)
    if not config.timestamp:
        reason = "none is configured: signatures are good for as long as the certificate only"
        return (skipped("TSA", reason, f"set `timestamp` in {config.path}"),)
    return tuple(check_tsa(url) for url in config.timestamp)


def _check_journal(config: ClientConfig) -> Row:
    """Each request is written there before it is sent; made by the first one."""
    directory = config.identity.journal
    place = directory if directory.is_dir() else config.identity.directory
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"privyseal doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(
            "journal.unwritable",
            f"cannot keep requests in {directory}: {error.strerror}",
            hint="make it writable for this account and give it space: nothing is sent before it is written there",
        ) from error
    return passed("request journal", f"{directory} can be written")


def _check_leftovers(config: ClientConfig) -> Row:
    subject = "leftover requests"
    found = sorted(config.identity.journal.glob("*.request.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        return passed(subject, "none: every request that was sent has been answered")
    newest = dt.datetime.fromtimestamp(found[-1].stat().st_mtime, dt.UTC)
    return warned(
        subject,
        f"{len(found)} in {config.identity.journal}, the newest of {newest:%Y-%m-%d %H:%M} UTC: sent, not answered",
        "sign those files again if they are still needed; what is left over is cleared after a week",
    )


def _mtls_rows(config: ClientConfig, clock: Clock) -> tuple[Row, ...]:
    subject, means = (_PROXIED, _PROXY_MEANS) if config.proxied else (_MTLS, "")
    rows = []
    answered: list[tuple[HubClient, HubStatus]] = []
    try:
        transports = hub_transports(config)
    except PrivysealError as error:
        rows, transports = [failed(subject, error)], ()
    for transport in transports:
        hub = HubClient(config, Cell((transport,)))
        try:
            status = hub.status()
        except PrivysealError as error:
            rows.append(failed(subject, error))
            continue
        version = f"version {status.version}, as client {status.client}"
        rows.append(passed(subject, f"{transport.url} answers this client ({version}){means}"))
        answered.append((hub, status))
    if not answered:
        reason = skipped("key profiles, log", "the hub gave no status", "mend the above first")
        return (*rows, reason)
    return (*rows, *_signing_rows(config, *answered[0], clock))


def _signing_rows(config: ClientConfig, hub: HubClient, status: HubStatus, clock: Clock) -> tuple[Row, ...]:
    profiles = tuple(
        look(f"key profile {one.name}", partial(_check_profile, hub, one.name, clock)) for one in status.profiles
    )
    if not profiles and not status.devices:
        profiles = (
            warned(
                "key profiles",
                "the hub knows none: no agent has announced one since the hub was started",
                "on the token's host: privyseal doctor --dir DIR, and privyseal agent run --dir DIR",
            ),
        )
    return (
        *profiles,
        *(_device_row(one) for one in status.devices),
        look("log", lambda: _check_log(config, status)),
    )


def _check_profile(hub: HubClient, name: str, clock: Clock) -> Row:
    subject = f"key profile {name}"
    view = hub.profile(name)
    if not view.online:
        raise UnavailableError(
            "agent.offline",
            f"the agent that serves key profile {name!r} has no link to the hub",
            hint="on the token's host: is the agent running? privyseal doctor --dir DIR",
        )
    leaf = parse_certificate(view.chain[0])
    now = moment(clock)
    if now > leaf.not_after:
        raise DeniedError(
            "certificate.expired",
            f"the certificate of key profile {name!r} was valid until {leaf.not_after:%Y-%m-%d}",
            hint="import the renewed certificate on the token's host and restart the agent",
        )
    left = days_left(leaf.not_after, now)
    found = f"{_described(view)}; {leaf.subject} until {leaf.not_after:%Y-%m-%d}, {left} days"
    if left < _DAYS_BEFORE_EXPIRY:
        return warned(subject, found, "order the renewed certificate now")
    return passed(subject, found)


def _device_row(device: DeviceView) -> Row:
    subject = f"device {device.name}"
    if not device.online:
        return warned(subject, f"cannot be lent: {device.problem} [{device.code}]", device.hint)
    lent = device.lent
    return passed(subject, f"{device.label}, " + ("free" if lent is None else f"lent to client {lent.client}"))


def _described(view: ProfileView) -> str:
    return f"online, {view.level}" + ("" if view.hardware else ", not hardware")


def _check_log(config: ClientConfig, status: HubStatus) -> Row:
    """What the web listener publishes extends what the mtls listener said a moment ago."""
    try:
        told = Checkpoint(origin=status.hub, size=status.log_size, root=bytes.fromhex(status.log_root))
    except ValueError as error:
        raise LogIntegrityError("log.checkpoint", f"the hub's status shows no log: {error}") from error
    newest = LogReader(config).check_extends(told)
    found = f"{newest.size} entries, signed by the pinned log key; extends the {told.size} of the hub's status"
    return passed("log", found)
