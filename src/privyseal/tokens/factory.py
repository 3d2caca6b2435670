# SPDX-License-Identifier: Apache-2.0
"""From a token's configuration to its adapter."""

from privyseal.tokens.config import TokenConfig
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.supervisor import WorkerToken

__all__ = ["open_token"]


def open_token(config: TokenConfig, *, pin: PinBuffer | None = None) -> WorkerToken:
    """The Token for a configuration. Nothing is started, loaded or presented before its first call.

    Args:
        config: What token it is.
        pin: A PIN that a person typed, instead of a PIN file; from then on owned, and wiped by `close`.
    """
    return WorkerToken(config, pin=pin)
