# SPDX-License-Identifier: Apache-2.0
"""A hub process put together: store, services, its listeners."""

import asyncio
import datetime as dt
import ssl
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privyseal.errors import ConfigError
from privyseal.hub.config import HubFiles, load_hub_config, split_address
from privyseal.hub.core import Hub
from privyseal.hub.database import open_store
from privyseal.hub.hosts import SameHost, same_host
from privyseal.hub.http import (
    devices,
    events,
    health,
    link,
    log,
    membership,
    queue,
    relays,
    signatures,
    status,
    timestamps,
)
from privyseal.hub.http.routes import Listener, Route, application
from privyseal.hub.services.enrol import TlsAuthority
from privyseal.identity.ca import issue_server, new_tls_key
from privyseal.identity.keyfile import load_ml_dsa_44, load_tls_key, save_private_key, write_public
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.clock import Clock, system_clock
from privyseal.tlog.cosignature import Cosigner

__all__ = ["HubProcess", "all_routes", "open_hub"]

_LOG: Final = structlog.get_logger("privyseal.hub")
_BACKLOG: Final = 1024
#: How long requests that wait for a signature, and agent links, may hold up the end; both come back by themselves.
_SHUTDOWN_SECONDS: Final = 1.0


def all_routes() -> tuple[Route, ...]:
    """The whole route table."""
    parts = (signatures, queue, devices, relays, timestamps, status, events, membership, link, health)
    others = tuple(route for part in parts for route in part.ROUTES)
    return (*others, *log.routes(others))


class HubProcess:
    """A hub and its listeners."""

    def __init__(self, *, hub: Hub, files: HubFiles, authority: TlsAuthority, clock: Clock) -> None:
        self.hub = hub
        self._files = files
        self._authority = authority
        self._clock = clock
        self._runners: list[web.AppRunner] = []

    async def start(self, confirmed_size: int | None = None) -> None:
        """Start the hub, then listen; `confirmed_size` as in `Hub.start`.

        Raises:
            ConfigError: `listen.failed`. LogIntegrityError: `log.rollback`.
        """
        await self.hub.start(confirmed_size)
        self._make_server_certificate()
        config, table = self.hub.config, all_routes()
        for listener, address in (
            (Listener.MTLS, config.listen_mtls),
            (Listener.WEB, config.listen_web),
            (Listener.PROXIED, config.listen_proxied),
        ):
            if not address:
                continue
            runner = web.AppRunner(
                application(self.hub, listener, table), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
            )
            await runner.setup()
            self._runners.append(runner)
            host, port = split_address(address)
            site = web.TCPSite(runner, host, port, ssl_context=self._tls(listener), backlog=_BACKLOG)
            try:
                await site.start()
            except OSError as error:
                raise ConfigError(
                    "listen.failed",
                    f"cannot listen on {address}: {error.strerror}",
                    hint=f"another process uses the port? Change {self._files.config}",
                ) from error
        if config.listen_proxied:
            _LOG.info(
                "proxied listener",
                address=config.listen_proxied,
                means="whoever ends TLS there sees names, digests and claims, and can delay; it can sign nothing",
            )
        _LOG.info("hub ready", name=config.name, mtls=config.mtls_url, web=config.web_url)

    def _make_server_certificate(self) -> None:
        key = new_tls_key()
        config = self.hub.config
        hosts = {split_address(url.removeprefix("https://"))[0] for url in (config.mtls_url, config.web_url)}
        names = tuple(dict.fromkeys((*sorted(hosts), *config.names, "localhost", "127.0.0.1")))
        now = dt.datetime.fromtimestamp(self._clock() / 1000, dt.UTC)
        certificate = issue_server(self._authority.certificate, self._authority.key, key.public_key(), names, now)
        save_private_key(self._files.tls_key, key)
        write_public(self._files.tls_certificate, certificate.public_bytes(Encoding.PEM))

    def _tls(self, listener: Listener) -> ssl.SSLContext | None:
        if listener is Listener.PROXIED:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self._files.tls_certificate, self._files.tls_key)
        if listener is Listener.MTLS:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.hub.bundle.statement.ca)
        return context

    async def stop(self) -> None:
        """Stop listening, then stop the hub."""
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        await self.hub.stop()


async def open_hub(directory: Path, clock: Clock = system_clock, *, is_here: SameHost = same_host) -> HubProcess:
    """Open the hub in a directory; `start` makes it listen.

    Args:
        directory: Where `hub init` made it.
        clock: The time.
        is_here: Judges whether an address is the hub's own host.

    Raises:
        ConfigError: what is missing or malformed.
        LogIntegrityError: `log.rollback`, `log.head_missing` and their like, if the log is not what it was.
    """
    config = load_hub_config(directory)
    files = HubFiles(directory)
    trust = PinnedTrust.load(files.bundle)
    bundle = trust.bundle
    if bundle.hub != config.name:
        raise ConfigError("config.malformed", f"{files.config} names {config.name!r}, its bundle {bundle.hub!r}")
    authority = TlsAuthority(
        certificate=x509.load_pem_x509_certificate(bundle.statement.ca.encode()), key=load_tls_key(files.ca_key)
    )
    log_cosigner = Cosigner(name=bundle.origin, key=load_ml_dsa_44(files.log_mldsa_key))
    store = await open_store(config, bundle.origin, files, clock)
    hub = Hub(
        config=config,
        trust=trust,
        store=store,
        authority=authority,
        log_cosigner=log_cosigner,
        clock=clock,
        is_here=is_here,
    )
    return HubProcess(hub=hub, files=files, authority=authority, clock=clock)
