# SPDX-License-Identifier: Apache-2.0
"""hub.toml and the files beside it."""

import datetime as dt
import re
import tomllib
from collections import Counter
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from privyseal.errors import ConfigError
from privyseal.storage.postgres_url import check_database_url
from privyseal.wire.tsa import check_tsa_url

__all__ = [
    "AnchorTable",
    "HubConfig",
    "HubFiles",
    "MetricsTable",
    "PoolTable",
    "QueueTable",
    "TeamTable",
    "TsaTable",
    "check_hub_name",
    "load_hub_config",
    "parse_interval",
    "split_address",
]

#: An ML-DSA-44 cosignature has no room for a longer origin.
_MAX_NAME_BYTES: Final = 255
_NAME_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-./")


class HubFiles(msgspec.Struct, frozen=True):
    """Where a hub keeps what it has; all in one directory."""

    directory: Path

    @property
    def config(self) -> Path:
        """Configuration."""
        return self.directory / "hub.toml"

    @property
    def ca_key(self) -> Path:
        """Key of the TLS CA."""
        return self.directory / "ca.key"

    @property
    def log_key(self) -> Path:
        """Key that signs checkpoints."""
        return self.directory / "log.key"

    @property
    def log_mldsa_key(self) -> Path:
        """ML-DSA-44 key that signs published checkpoints once more."""
        return self.directory / "log-ml-dsa-44.key"

    @property
    def bundle(self) -> Path:
        """The trust bundle in force."""
        return self.directory / "bundle.json"

    @property
    def database(self) -> Path:
        """Queue, enrolments and log, if hub.toml names no other database."""
        return self.directory / "hub.db"

    @property
    def head(self) -> Path:
        """The newest checkpoint; kept out of every backup, so that a restored database is noticed."""
        return self.directory / "head.checkpoint"

    @property
    def tls_key(self) -> Path:
        """Key of the server certificate; both are made anew at each start."""
        return self.directory / "tls.key"

    @property
    def tls_certificate(self) -> Path:
        """Server certificate."""
        return self.directory / "tls.pem"


class TsaTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time-stamping authority that the hub asks for its clients.

    Attributes:
        url: http or https.
        per_minute: How many requests it gets in any minute at most; 0 sets no bound.
    """

    url: str
    per_minute: Annotated[int, msgspec.Meta(ge=0, le=6000)] = 0


class AnchorTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the log is anchored in time.

    Attributes:
        every: How often the hub has a TSA timestamp its newest checkpoint, such as `24h`; empty for never.
    """

    every: str = ""


class MetricsTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may read /metrics.

    Attributes:
        allow: Addresses and networks, such as `192.0.2.7` or `2001:db8::/32`.
    """

    allow: tuple[str, ...] = ("127.0.0.0/8", "::1")


_PriorityName = Literal["release", "normal", "nightly"]


class QueueTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How requests wait.

    Attributes:
        most: Most items in the queue, of all clients together.
        most_per_client: Most items of one client.
        aging_minutes: After so long a request counts for the next higher class; 0 for never.
        priority: The highest class that a client without a team may ask for.
        lease_seconds: How long a hub that was lost keeps a token from the others.
        longest_hours: How long a request may wait for its signatures.
    """

    most: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100_000
    most_per_client: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 50_000
    aging_minutes: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 30
    priority: _PriorityName = "release"
    lease_seconds: Annotated[float, msgspec.Meta(ge=1.0, le=600.0)] = 10.0
    longest_hours: Annotated[float, msgspec.Meta(gt=0, le=31 * 24)] = 24.0

    @property
    def longest_seconds(self) -> int:
        """The same in seconds."""
        return int(self.longest_hours * 3600)


class TeamTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clients that have one share of the tokens between them.

    Attributes:
        clients: Their names, or patterns such as `ci-*`. A client belongs to the first team that names it.
        weight: Of two teams that both wait, one with twice the weight gets twice as much.
        priority: The highest class that they may ask for.
    """

    name: str
    clients: tuple[str, ...]
    weight: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    priority: _PriorityName = "release"


class PoolTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key profile over several tokens; each of them may have a key and a certificate of its own.

    Attributes:
        tokens: `AGENT/TOKEN`, by the names in the agents' agent.toml. Another token is refused.
        successors: Tokens that new requests use from `since` on.
        since: ISO 8601 with a time zone.
    """

    profile: str
    tokens: tuple[str, ...]
    successors: tuple[str, ...] = ()
    since: str = ""

    @property
    def since_ms(self) -> int | None:
        """Milliseconds since the epoch; None without successors."""
        return int(dt.datetime.fromisoformat(self.since).timestamp() * 1000) if self.successors else None


class HubConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What hub.toml says.

    Attributes:
        name: The hub's name, which is also the log's origin; lower-case letters, digits, `-`, `.` and `/`.
        listen_mtls, listen_web: HOST:PORT to bind.
        listen_proxied: HOST:PORT for plain HTTP from a proxy that ends TLS; empty for none.
        mtls_url, web_url: How clients and agents reach the two listeners.
        urls: Where each hub process of this database is reached, this one among them; agents dial all of them. Clients
            use them, too, unless `mtls_url` is none of them: then it is a balancer's, and theirs.
        names: Further names and addresses in the server certificate: this hub's own, if the URLs name a balancer.
        database: PostgreSQL URL without a password; empty for the SQLite file beside hub.toml.
        tsa: Whom POST /v1/timestamps and /v1/anchors ask, in the order of preference.
        anchor: Whether the hub anchors its log by itself.
        metrics: Who may read /metrics.
        queue: How requests wait.
        team: Clients that share.
        pool: Key profiles over several tokens.
    """

    name: str
    listen_mtls: str
    listen_web: str
    mtls_url: str
    web_url: str
    urls: tuple[str, ...] = ()
    listen_proxied: str = ""
    names: tuple[str, ...] = ()
    database: str = ""
    tsa: tuple[TsaTable, ...] = ()
    anchor: AnchorTable = AnchorTable()
    metrics: MetricsTable = MetricsTable()
    queue: QueueTable = QueueTable()
    team: tuple[TeamTable, ...] = ()
    pool: tuple[PoolTable, ...] = ()

    def urls_for(self, role: str) -> tuple[str, ...]:
        """The hub processes that a new member dials."""
        balanced = role == "client" and self.mtls_url not in self.urls
        return (self.mtls_url,) if balanced or not self.urls else self.urls


def split_address(text: str) -> tuple[str, int]:
    """HOST:PORT as host and port.

    Raises:
        ConfigError: `config.address`.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError("config.address", f"{text!r} is not HOST:PORT, for example 127.0.0.1:8443")
    return host.strip("[]"), int(port)


def parse_interval(text: str) -> float:
    """Seconds of an interval such as `30m`, `24h` or `7d`; 0 for an empty one.

    Raises:
        ConfigError: `config.interval`.
    """
    if not text:
        return 0.0
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text)
    if found is None:
        raise ConfigError("config.interval", f"{text!r} is no interval", hint='write minutes, hours or days: "24h"')
    return float(int(found[1]) * {"m": 60, "h": 3600, "d": 86_400}[found[2]])


def check_hub_name(name: str) -> None:
    """A hub's name is its log's origin: it stands in checkpoints and receipts, and never changes.

    Raises:
        ConfigError: `config.malformed`.
    """
    if not name or set(name) - _NAME_CHARACTERS:
        raise ConfigError("config.malformed", f"hub name {name!r} may hold a-z, 0-9, '-', '.' and '/' only")
    if len(name) > _MAX_NAME_BYTES:
        raise ConfigError("config.malformed", f"a hub's name has at most {_MAX_NAME_BYTES} characters")


def _check_network(text: str) -> None:
    try:
        ip_network(text)
    except ValueError as error:
        raise ConfigError(
            "config.network",
            f"[metrics] allow: {error}",
            hint='write addresses and networks: "192.0.2.7", "10.0.0.0/8", "2001:db8::/32"',
        ) from error


def _check_queue(config: HubConfig, path: Path) -> None:
    for kind, names in (
        ("team", [team.name for team in config.team]),
        ("pool", [pool.profile for pool in config.pool]),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                raise ConfigError("config.malformed", f"{path}: [[{kind}]] {name} stands there {count} times")
    for pool in config.pool:
        _check_pool(pool, path)


def _check_pool(pool: PoolTable, path: Path) -> None:
    wrong = ""
    members = (*pool.tokens, *pool.successors)
    if not pool.tokens or any(not all(one.partition("/")[::2]) for one in members):
        wrong = "tokens are written AGENT/TOKEN, by their names in agent.toml"
    elif len(set(members)) < len(members):
        wrong = "names one token twice"
    elif bool(pool.successors) != bool(pool.since):
        wrong = "successors need `since`, and the other way round"
    elif pool.since:
        try:
            moment = dt.datetime.fromisoformat(pool.since)
            wrong = "" if moment.tzinfo else "since needs a time zone: 2027-01-31T06:00:00Z"
        except ValueError as error:
            wrong = f"since: {error}"
    if wrong:
        raise ConfigError("config.malformed", f"{path}: [[pool]] {pool.profile}: {wrong}")


def load_hub_config(directory: Path) -> HubConfig:
    """Read hub.toml.

    Raises:
        ConfigError: `config.missing`, `config.malformed`, `config.address`, `config.database`, `config.network`,
            `timestamp.url`.
    """
    path = HubFiles(directory).config
    try:
        config = msgspec.convert(tomllib.loads(path.read_text("utf-8")), HubConfig)
    except OSError as error:
        raise ConfigError(
            "config.missing", f"there is no hub in {directory}", hint=f"privyseal hub init --dir {directory}"
        ) from error
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise ConfigError("config.malformed", f"{path}: {error}") from error
    check_hub_name(config.name)
    split_address(config.listen_mtls)
    split_address(config.listen_web)
    if config.listen_proxied:
        split_address(config.listen_proxied)
    if config.database:
        check_database_url(config.database)
    if parse_interval(config.anchor.every) and not config.tsa:
        raise ConfigError("config.malformed", f"{path}: [anchor] needs a TSA to ask: name one under [[tsa]]")
    for network in config.metrics.allow:
        _check_network(network)
    _check_queue(config, path)
    for url, count in Counter(table.url for table in config.tsa).items():
        check_tsa_url(url)
        if count > 1:
            raise ConfigError("config.malformed", f"{path}: [[tsa]] names {url} {count} times")
    return config
