# SPDX-License-Identifier: Apache-2.0
"""Whom client.toml names as the hub: one or several, with a client certificate or behind a proxy."""

from privyseal.client.cell import Cell
from privyseal.client.config import ClientConfig
from privyseal.client.mtls import MtlsTransport, mtls_context
from privyseal.client.proxied import ProxiedTransport, proxied_context
from privyseal.client.transport import WebTransport
from privyseal.identity.keyfile import load_ed25519

__all__ = ["hub_cell", "hub_transports"]


def hub_transports(config: ClientConfig) -> tuple[WebTransport, ...]:
    """One for each address.

    Raises:
        ConfigError: `file.missing`, `file.not_a_key` and their like.
    """
    if not config.proxied:
        context = mtls_context(config)
        return tuple(MtlsTransport(url, context, config) for url in config.hub_urls)
    context, key = proxied_context(config), load_ed25519(config.identity.request_key)
    hub = config.load_bundle().hub
    return tuple(ProxiedTransport(url, context, key, hub) for url in config.hub_urls)


def hub_cell(config: ClientConfig) -> Cell:
    """All of them as one.

    Raises:
        ConfigError: as `hub_transports`.
    """
    return Cell(hub_transports(config))
