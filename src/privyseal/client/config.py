# SPDX-License-Identifier: Apache-2.0
"""client.toml, and where it is looked for: flag, PRIVYSEAL_CONFIG, ./privyseal.toml, XDG, /etc/privyseal."""

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from privyseal.errors import ConfigError
from privyseal.identity.bundle import TrustBundle, load_bundle
from privyseal.wire.tsa import check_tsa_url

__all__ = [
    "ClientConfig",
    "ClientIdentity",
    "client_config_text",
    "find_client_config",
    "load_client_config",
    "optional_client_config",
]


_URL: Final = re.compile(r"https://[^/\s]+/?")
_MAX_URLS: Final = 16
#: Checked by `_listed`: a pattern in a union makes msgspec crash at exit now and then.
_Urls = str | tuple[str, ...]


class _ClientTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    hub: _Urls
    web: _Urls
    identity: str
    proxied: bool = False
    hub_ca: str = ""
    trust: tuple[str, ...] = ()
    wait_seconds: Annotated[float, msgspec.Meta(ge=0, le=7 * 86_400)] = 300.0
    timestamp: tuple[str, ...] = ()
    timestamp_via: Literal["direct", "hub"] = "direct"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientIdentity:
    """Directory with the client's keys, certificate, pinned bundle and journal."""

    directory: Path

    @property
    def bundle(self) -> Path:
        """The pinned trust bundle."""
        return self.directory / "bundle.json"

    @property
    def tls_key(self) -> Path:
        """Key of the TLS certificate."""
        return self.directory / "tls.key"

    @property
    def tls_certificate(self) -> Path:
        """TLS certificate."""
        return self.directory / "tls.pem"

    @property
    def request_key(self) -> Path:
        """The long-lived request key."""
        return self.directory / "request.key"

    @property
    def journal(self) -> Path:
        """Requests that were sent and not yet answered."""
        return self.directory / "journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """What client.toml says, with paths made absolute.

    Attributes:
        path: The file itself.
        hub_urls, web_urls: The two listeners of the hub, or of each hub of one cell: any of them does.
        proxied: Whether a proxy ends TLS in front of the hub, so that requests themselves are signed.
        hub_ca: PEM file with the roots that the proxy's own certificate ends at; None for those of the system.
        trust: PEM files with roots that signatures and timestamps may end at, beside those of the system.
        wait_seconds: How long `sign` goes on while nothing comes, no signature and no hub, before it gives up (exit 7).
        timestamp: URLs of TSAs, in the order in which they are asked; none asks for no timestamps.
        timestamp_via: `direct`, or `hub` to have the hub ask the TSAs of its own configuration.
    """

    path: Path
    name: str
    hub_urls: tuple[str, ...]
    web_urls: tuple[str, ...]
    identity: ClientIdentity
    trust: tuple[Path, ...]
    wait_seconds: float
    timestamp: tuple[str, ...] = ()
    timestamp_via: str = "direct"
    proxied: bool = False
    hub_ca: Path | None = None

    def load_bundle(self) -> TrustBundle:
        """The pinned trust bundle.

        Raises:
            ConfigError: `file.missing`.
        """
        return load_bundle(self.identity.bundle)


_TEXT = """\
# A Privyseal client. Paths are relative to this file.
name = "{name}"

# The hub: signing with a client certificate, and joining, log and health without one. Several hubs over one database
# are a list: hub = ["https://hub-1:8443", "https://hub-2:8443"].
hub = {hub}
web = "{web}"

# Keys, certificate and pinned trust bundle.
identity = "{identity}"

# Roots (PEM) that signatures and timestamps may end at, beside those of the system.
trust = [{trust}]

# How long `privyseal sign` goes on while nothing comes: no signature, or no hub that answers.
wait_seconds = 300.0

# TSAs (RFC 3161) that are asked for timestamps, in this order; or let the hub ask those that it knows.
# timestamp = ["http://tsa.example.com", "http://other.example.net/rfc3161"]
# timestamp_via = "hub"
"""


def _listed(path: Path, name: str, urls: _Urls) -> tuple[str, ...]:
    """One URL or several, each once."""
    several = (urls,) if isinstance(urls, str) else urls
    if not 1 <= len(several) <= _MAX_URLS or not all(_URL.fullmatch(url) for url in several):
        raise ConfigError(
            "config.malformed", f"{path}: `{name}` is neither a URL https://HOST:PORT nor a list of 1 to {_MAX_URLS}"
        )
    return tuple(dict.fromkeys(url.rstrip("/") for url in several))


def client_config_text(
    *, name: str, hubs: tuple[str, ...], web: str, identity: str, trust: tuple[str, ...] = ()
) -> str:
    """An annotated client.toml."""
    hub = json.dumps(hubs[0] if len(hubs) == 1 else hubs)  # URLs hold no character that TOML or JSON would escape
    return _TEXT.format(name=name, hub=hub, web=web, identity=identity, trust=", ".join(f'"{path}"' for path in trust))


def find_client_config(explicit: str = "") -> Path:
    """The configuration file in force.

    Raises:
        ConfigError: `config.missing`, naming where it was looked for.
    """
    named = explicit or os.environ.get("PRIVYSEAL_CONFIG", "")
    if named:
        path = Path(named)
        if not path.is_file():
            origin = "--config" if explicit else "PRIVYSEAL_CONFIG"
            raise ConfigError("config.missing", f"{origin} names {named}, which is not a file")
        return path
    xdg = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = (Path("privyseal.toml"), xdg / "privyseal" / "client.toml", Path("/etc/privyseal/client.toml"))
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(
        "config.missing",
        "no client configuration found (looked for " + ", ".join(str(place) for place in places) + ")",
        hint="privyseal client join makes one; to try everything here: privyseal up --dir DIR",
    )


def load_client_config(explicit: str = "") -> ClientConfig:
    """Read the configuration in force.

    Raises:
        ConfigError: `config.missing`, `config.malformed`, `timestamp.url`.
    """
    path = find_client_config(explicit)
    try:
        table = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _ClientTable)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError("config.malformed", f"{path}: {error}") from error
    for url in table.timestamp:
        check_tsa_url(url)
    if table.hub_ca and not table.proxied:
        raise ConfigError(
            "config.malformed",
            f"{path}: `hub_ca` is for the certificate of a proxy, but `proxied` is not true",
            hint="without a proxy the CA of the trust bundle is believed, and nothing else",
        )
    base = path.resolve().parent
    return ClientConfig(
        path=path,
        name=table.name,
        hub_urls=_listed(path, "hub", table.hub),
        web_urls=_listed(path, "web", table.web),
        identity=ClientIdentity(directory=base / table.identity),
        trust=tuple(base / trusted for trusted in table.trust),
        wait_seconds=table.wait_seconds,
        timestamp=table.timestamp,
        timestamp_via=table.timestamp_via,
        proxied=table.proxied,
        hub_ca=base / table.hub_ca if table.hub_ca else None,
    )


def optional_client_config(explicit: str = "") -> ClientConfig | None:
    """The configuration in force, for what also works without; None if there is none and none was named.

    Raises:
        ConfigError: `config.missing` for one that was named, `config.malformed`.
    """
    try:
        return load_client_config(explicit)
    except ConfigError as error:
        if error.code == "config.missing" and not explicit and not os.environ.get("PRIVYSEAL_CONFIG"):
            return None
        raise
