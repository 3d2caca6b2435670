# SPDX-License-Identifier: Apache-2.0
"""A port of this host for one stock client of USB/IP, where devices are not attached by ourselves.

Whoever on this host connects first has the device: so the port is open for seconds, takes one connection, and closes.
"""

import asyncio
import contextlib
import socket
from typing import Final

from privyseal.errors import UnavailableError
from privyseal.usb.streams import SocketStream

__all__ = ["LoopbackPort"]

_CONNECT_SECONDS: Final = 10.0


class LoopbackPort:
    """Listens on 127.0.0.1 from when it is made; every other host is refused by the kernel.

    Args:
        port: Its number; 0 for any that is free. `usbip attach` takes another than 3240 by `--tcp-port`.

    Raises:
        UnavailableError: `usb.port_taken`.
    """

    def __init__(self, port: int = 0) -> None:
        try:
            self._listener = socket.create_server(("127.0.0.1", port), backlog=1)
        except OSError as error:
            raise UnavailableError(
                "usb.port_taken",
                f"port {port} of 127.0.0.1 cannot be used: {error.strerror}",
                hint="choose another port, or end what uses it: Linux's usbipd listens on 3240",
            ) from error
        self._listener.settimeout(0)

    @property
    def port(self) -> int:
        """Its number."""
        return int(self._listener.getsockname()[1])

    async def accept(self, *, seconds: float = _CONNECT_SECONDS) -> SocketStream:
        """The one connection; the port is closed then, and when none came.

        Raises:
            UnavailableError: `usb.no_client`.
        """
        try:
            async with asyncio.timeout(seconds):
                connected, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        except TimeoutError as error:
            raise UnavailableError(
                "usb.no_client",
                f"no USB/IP client connected within {seconds:g} s",
                hint="attach with a USB/IP client to the address that was shown, and sooner",
            ) from error
        finally:
            self.close()
        return await SocketStream.over(connected)

    def close(self) -> None:
        """Close the port."""
        with contextlib.suppress(OSError):
            self._listener.close()
