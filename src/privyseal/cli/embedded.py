# SPDX-License-Identifier: Apache-2.0
"""The embedded installation behind `up`: hub, agent, software token and a client in one directory.

It is made with the same steps as a distributed one: `hub init`, an invitation, a join over TLS. Only the ceremony is
automatic.
"""

import asyncio
import datetime as dt
import json
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privyseal.agent.joining import remember_checkpoint
from privyseal.agent.wiring import Agent, open_agent
from privyseal.client.administration import Administration
from privyseal.client.config import client_config_text
from privyseal.client.joining import join
from privyseal.errors import ConfigError, UnavailableError
from privyseal.hub.config import HubConfig, load_hub_config, split_address
from privyseal.hub.core import Hub
from privyseal.hub.setup import NewHub, init_hub
from privyseal.hub.wiring import HubProcess, open_hub
from privyseal.identity.keyfile import write_private, write_public
from privyseal.tokens.software import create_software_token, generate_key, set_certificates
from privyseal.tokens.testca import make_test_ca

__all__ = ["Installation", "make_or_open"]

_PROFILE: Final = "demo"
_KEY_ID: Final = b"\x01"
_CERTIFICATE_DAYS: Final = 460  # what public CAs issue at most since March 2026
_READY_SECONDS: Final = 60.0
_AGENT_TEXT: Final = """\
# The agent of `privyseal up`. Paths are relative to this file.
name = "agent"
hub = "{hub}"
web = "{web}"

# A key in an encrypted file: for trying things out. It is not hardware, and everything says so.
[[token]]
name = "software"
kind = "software"
path = "token"
pin_file = "pin"

[[key]]
profile = "demo"
token = "software"
id = "01"
level = "traced"
opaque = ["*"]
test = true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A running embedded installation."""

    directory: Path
    process: HubProcess
    agent: Agent

    @property
    def hub(self) -> Hub:
        """The hub without its sockets."""
        return self.process.hub

    async def ready(self) -> None:
        """Return when something can be signed.

        Raises:
            TokenError: why the key profiles cannot be served. UnavailableError: `up.not_ready`.
        """
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not any(one.online for one in self.hub.dispatch.profiles):
                    problems = [one.problem for one in self.hub.dispatch.profiles if one.problem is not None]
                    if problems and len(problems) == len(self.agent.config.key):
                        raise problems[0]
                    await self.hub.dispatch.changed.wait()
                    self.hub.dispatch.changed.clear()
        except TimeoutError as error:
            raise UnavailableError(
                "up.not_ready",
                f"no key profile is ready after {_READY_SECONDS:.0f} s",
                hint="the log above says why",
            ) from error

    def announcement(self) -> dict[str, Any]:
        """The line that says that it can sign."""
        return {
            "ready": True,
            "url": self.hub.config.web_url,
            "mtls_url": self.hub.config.mtls_url,
            "console": None,
            "client_config": str((self.directory / "client.toml").resolve()),
        }

    async def stop(self) -> None:
        """Stop agent and hub."""
        await self.agent.stop()
        await self.process.stop()


async def make_or_open(directory: Path, listen: str) -> Installation:
    """Start the installation in a directory, after making it if the directory is empty.

    Raises:
        ConfigError: `up.half_made`, `up.listen`; what else is missing or malformed.
    """
    marker = directory / "installation.json"
    if not marker.is_file():
        if _is_in_use(directory):
            raise ConfigError(
                "up.half_made",
                f"{directory} holds something, but no finished installation",
                hint="give an empty directory, or remove this one if an earlier `up` was interrupted in it",
            )
        return await _make(directory, listen, marker)
    if listen and listen != load_hub_config(directory / "hub").listen_mtls:
        raise ConfigError(
            "up.listen",
            f"{directory} was made to listen on {load_hub_config(directory / 'hub').listen_mtls}",
            hint=f"leave --listen out, or change {directory / 'hub' / 'hub.toml'}",
        )
    process = await open_hub(directory / "hub")
    try:
        await process.start()
        agent = await open_agent(directory / "agent")
        await agent.start()
    except BaseException:
        await process.stop()
        raise
    return Installation(directory=directory, process=process, agent=agent)


def _is_in_use(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


def _free_ports(host: str, count: int) -> list[int]:
    """Ports that are free now, all different."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _hub_config(listen: str) -> HubConfig:
    host, port = split_address(listen) if listen else ("127.0.0.1", 0)
    mtls, web = (port, port + 1) if port else _free_ports(host, 2)
    public = "localhost" if host in ("127.0.0.1", "::1") else host
    return HubConfig(
        name=f"privyseal.local/{secrets.token_hex(4)}",
        listen_mtls=f"{host}:{mtls}",
        listen_web=f"{host}:{web}",
        mtls_url=f"https://{public}:{mtls}",
        web_url=f"https://{public}:{web}",
    )


async def _make(directory: Path, listen: str, marker: Path) -> Installation:
    now = dt.datetime.now(dt.UTC)
    config = _hub_config(listen)
    authority = directory / "authority.key"
    init_hub(NewHub(directory=directory / "hub", authority_path=authority, config=config), now)
    process = await open_hub(directory / "hub")
    try:
        await process.start()
        await asyncio.to_thread(_enrol, directory, process.hub, authority)
        await asyncio.to_thread(_make_token, directory, config, now)
        agent = await open_agent(directory / "agent")
        await agent.start()
    except BaseException:
        await process.stop()
        raise
    write_public(marker, json.dumps({"made": now.isoformat(), "hub": config.name}).encode())
    return Installation(directory=directory, process=process, agent=agent)


def _enrol(directory: Path, hub: Hub, authority: Path) -> None:
    """Agent and client join as they would from anywhere."""
    desk = Administration(bundle=hub.bundle, web_url=hub.config.web_url, authority_paths=(authority,))
    agent = join(desk.invite("agent", "agent", ()), "agent", directory / "agent")
    asyncio.run(remember_checkpoint(directory / "agent", agent.bundle, agent.checkpoint))
    member = join(desk.invite("client", "client", ("*",)), "client", directory / "client")
    text = client_config_text(
        name=member.name, hubs=member.mtls_urls, web=member.web_url, identity="client", trust=("test-root.pem",)
    )
    write_public(directory / "client.toml", text.encode())


def _make_token(directory: Path, config: HubConfig, now: dt.datetime) -> None:
    """A software token with one RSA-3072 key, certified by a test root that nobody else trusts."""
    pin = secrets.token_hex(16).encode()
    place = directory / "agent" / "token"
    write_private(directory / "agent" / "pin", pin)
    create_software_token(place, pin=pin, label="software")
    spki = generate_key(place, pin=pin, kind="rsa3072", key_id=_KEY_ID, label=_PROFILE)
    not_before = now - dt.timedelta(minutes=5)
    root = make_test_ca(not_before=not_before, not_after=now + dt.timedelta(days=3650))
    chain = root.issue_code_signing(
        spki=spki,
        common_name="Privyseal demo (not trusted)",
        not_before=not_before,
        not_after=now + dt.timedelta(days=_CERTIFICATE_DAYS),
    )
    set_certificates(place, key_id=_KEY_ID, chain=chain)
    pem = x509.load_der_x509_certificate(chain[-1]).public_bytes(Encoding.PEM)
    write_public(directory / "test-root.pem", pem)
    text = _AGENT_TEXT.format(hub=config.mtls_url, web=config.web_url)
    write_private(directory / "agent" / "agent.toml", text.encode())
