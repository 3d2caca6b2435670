# SPDX-License-Identifier: Apache-2.0
"""Which log is meant, and which key must have signed it."""

from pathlib import Path

from privyseal.client.config import load_client_config
from privyseal.client.log import LogReader, PublicLog
from privyseal.client.log_source import log_source
from privyseal.errors import ConfigError
from privyseal.identity.bundle import load_bundle
from privyseal.tlog.note import parse_vkey

__all__ = ["open_log"]


def open_log(place: str, *, bundle: Path | None, vkey: str, config: str) -> PublicLog:
    """The log in a directory or at a URL, or without either that of the configured hub.

    Args:
        place: Directory, http(s) URL, or empty.
        bundle: Trust bundle that names the log's key, instead of the one that the configuration pins.
        vkey: The log's verifier key itself; then the log's origin is the key's name.
        config: Client configuration, or empty for the usual places.

    Raises:
        ConfigError: `log.key`, `log.place`, `file.missing`, `config.missing`.
        MalformedInputError: `vkey.malformed`; the bundle.
    """
    if bundle is not None and vkey:
        raise ConfigError("log.key", "--bundle and --vkey both name the log's key", hint="leave one of them out")
    if not place:
        if bundle is not None or vkey:
            raise ConfigError(
                "log.key",
                "--bundle and --vkey are for a log in a directory or at a URL",
                hint="the hub's own log is judged with the trust bundle that this client pinned when it joined",
            )
        return LogReader(load_client_config(config))
    source = log_source(place)
    if vkey:
        key = parse_vkey(vkey)
        return PublicLog(source, key=key, origin=key.name)
    trusted = load_client_config(config).load_bundle() if bundle is None else load_bundle(bundle)
    return PublicLog(source, key=trusted.log_key, origin=trusted.origin, also=(trusted.log_mldsa_key,))
