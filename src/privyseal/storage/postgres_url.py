# SPDX-License-Identifier: Apache-2.0
"""The address of a PostgreSQL database: without a secret, and never over a network that is not authenticated."""

from typing import Final
from urllib.parse import parse_qs, urlsplit

from privyseal.errors import ConfigError

__all__ = ["check_database_url", "database_place"]

_SCHEMES: Final = ("postgresql", "postgres")
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_EXAMPLE: Final = (
    "postgresql://privyseal@db.example.com/privyseal?sslmode=verify-full&sslrootcert=/etc/privyseal/db-ca.pem"
)


def check_database_url(url: str) -> None:
    """Refuse an address that holds a password, or that trusts whoever answers on a network.

    Raises:
        ConfigError: `config.database`. The message never repeats what may be a password.
    """
    try:
        parts = urlsplit(url)
        host, password, options = parts.hostname or "", parts.password, parse_qs(parts.query)
    except ValueError:
        raise _refused("is not a URL", f"for example {_EXAMPLE}") from None
    if parts.scheme not in _SCHEMES:
        raise _refused("is not a postgresql:// URL", f"for example {_EXAMPLE}")
    if password is not None or "password" in options:
        raise _refused(
            "has a password in it",
            "keep the password in a passfile (mode 0600: ~/.pgpass, or ?passfile=FILE), or let the database's machine"
            " know this account (peer)",
        )
    hosts = [name for value in options.get("host", [host]) for name in value.split(",")]
    far = [name for name in hosts if name and not name.startswith("/") and name not in _LOOPBACK]
    if far and options.get("sslmode") != ["verify-full"]:
        raise _refused(
            f"leads to {far[0]} and does not say sslmode=verify-full",
            f"without it anybody on the way could pass for the database; for example {_EXAMPLE}",
        )


def _refused(why: str, hint: str) -> ConfigError:
    return ConfigError("config.database", f"the address `database` in hub.toml {why}", hint=hint)


def database_place(url: str) -> str:
    """An accepted address for people: database and host."""
    parts = urlsplit(url)
    host = parts.hostname or parse_qs(parts.query).get("host", ["the local socket"])[0]
    return f"PostgreSQL database {parts.path.removeprefix('/') or parts.username or 'by default'} at {host}"
