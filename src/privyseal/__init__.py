# SPDX-License-Identifier: Apache-2.0
"""Privyseal: one hardware signing token, every build server."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from privyseal.client.sdk import AsyncClient, Client, Wait

__all__ = ["AsyncClient", "Client", "Wait", "__version__"]

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> object:
    """The clients are imported when they are used, so that `privyseal --version` answers at once."""
    if name in ("AsyncClient", "Client", "Wait"):
        from privyseal.client import sdk  # noqa: PLC0415 - see above

        return getattr(sdk, name)
    raise AttributeError(f"module 'privyseal' has no attribute {name!r}")
