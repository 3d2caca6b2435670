# SPDX-License-Identifier: Apache-2.0
"""The address of a PostgreSQL database: without a secret, and never over a network that is not authenticated."""

from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from privyseal.errors import ConfigError

__all__ = ["check_database_url", "database_place"]

_SCHEMES: Final = ("postgresql", "postgres")
#: All that an address may say after the `?`, once each: no secret, and nothing that lets another file say more.
_OPTIONS: Final = frozenset({"host", "port", "passfile", "sslmode", "sslrootcert", "sslcert", "sslkey"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_EXAMPLE: Final = "for example postgresql://hub@db.example.com/privyseal?sslmode=verify-full&sslrootcert=ca.pem"


def check_database_url(url: str) -> None:
    """Refuse an address that holds a password, or that trusts whoever answers on a network.

    Raises:
        ConfigError: `config.database`. The message never repeats what may be a password.
    """
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else {}
    except ValueError:
        raise _refused("is not a URL", _EXAMPLE) from None
    if parts.scheme not in _SCHEMES or parts.netloc.count("@") > 1:
        raise _refused("is not a postgresql:// URL", _EXAMPLE)
    if parts.password is not None or "password" in options:
        raise _refused(
            "has a password in it",
            "keep the password in a passfile (mode 0600: ~/.pgpass, or ?passfile=FILE), or let the database's machine"
            " know this account (peer)",
        )
    if not options.keys() <= _OPTIONS or any(len(values) > 1 for values in options.values()):
        raise _refused("has options that are not known, or twice", f"known are {', '.join(sorted(_OPTIONS))}")
    far = [host for host in _hosts(parts, options) if not host.startswith("/") and host not in _LOOPBACK]
    if far and options.get("sslmode") != ["verify-full"]:
        raise _refused(
            f"leads to {far[0]} and does not say sslmode=verify-full",
            f"without it anybody on the way could pass for the database; {_EXAMPLE}",
        )


def _hosts(parts: SplitResult, options: dict[str, list[str]]) -> list[str]:
    named = parts.netloc.rpartition("@")[2]
    if bool(named) == ("host" in options):
        raise _refused("names no host, or names it twice", f"{_EXAMPLE}, or ?host=/run/postgresql for a local server")
    hosts = (named or options["host"][0]).split(",")
    return [host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0] for host in hosts]


def _refused(why: str, hint: str) -> ConfigError:
    return ConfigError("config.database", f"the address of the PostgreSQL database {why}", hint=hint)


def database_place(url: str) -> str:
    """An accepted address for people: database and host."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or parse_qs(parts.query)["host"][0]
    return f"PostgreSQL database {parts.path.removeprefix('/')} at {host}"
