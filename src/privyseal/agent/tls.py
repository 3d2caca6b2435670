# SPDX-License-Identifier: Apache-2.0
"""How an agent knows its hubs, and they it."""

import ssl

from privyseal.agent.config import AgentFiles
from privyseal.identity.bundle import TrustBundle
from privyseal.identity.keyfile import read_private

__all__ = ["hub_tls"]


def hub_tls(files: AgentFiles, bundle: TrustBundle) -> ssl.SSLContext:
    """TLS 1.3 with the agent's certificate; only the pinned CA is believed."""
    read_private(files.tls_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=bundle.statement.ca)
    context.load_cert_chain(files.tls_certificate, files.tls_key)
    return context
