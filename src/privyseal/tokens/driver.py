# SPDX-License-Identifier: Apache-2.0
"""What the worker process drives: one token, synchronously, in one thread."""

from collections.abc import Callable
from typing import Protocol

from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import KeyCounter, KeyKind, ReaderUse, TokenInfo, TokenKey
from privyseal.tokens.pin import PinBuffer

__all__ = ["Driver", "Progress"]

#: Told the name of a function right before it is called, for those that use something up or leave something behind.
Progress = Callable[[str], None]


class Driver(Protocol):
    """One token. The contract of each method is that of the Token port, plus blocking."""

    def open(self) -> None:
        """Load what is needed; the token itself may still be absent.

        Raises:
            TokenError: `token.module`, `token.failed`.
        """
        ...

    def info(self) -> TokenInfo:
        """See `privyseal.ports.token.Token.info`."""
        ...

    def keys(self) -> tuple[TokenKey, ...]:
        """See `privyseal.ports.token.Token.keys`."""
        ...

    def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        """See `privyseal.ports.token.Token.sign`."""
        ...

    def generate_key(self, *, kind: KeyKind, key_id: bytes, label: str) -> TokenKey:
        """See `privyseal.ports.token.ManagedToken.generate_key`."""
        ...

    def store_certificates(self, *, key_id: bytes, chain: tuple[bytes, ...]) -> None:
        """See `privyseal.ports.token.ManagedToken.store_certificates`."""
        ...

    def change_pin(self, new: PinBuffer) -> None:
        """See `privyseal.ports.token.ManagedToken.change_pin`."""
        ...

    def reinitialize(self) -> None:
        """C_Finalize and C_Initialize: the next call finds a module that remembers nothing.

        Raises:
            TokenError: `token.failed`; then only a new worker helps.
        """
        ...

    def counters(self) -> tuple[KeyCounter, ...]:
        """See `privyseal.ports.token.Token.counters`."""
        ...

    def reader_use(self) -> ReaderUse | None:
        """See `privyseal.ports.token.Token.reader_use`."""
        ...

    def probe(self, count: int) -> tuple[int, ...] | None:
        """See `privyseal.ports.token.Token.probe`."""
        ...

    def close(self) -> None:
        """End sessions. May crash inside a vendor's module: whatever matters has been answered before."""
        ...
