# SPDX-License-Identifier: Apache-2.0
"""Linux's virtual USB controller described by files, which takes a socket as the kernel does."""

import errno
import os
import socket
from pathlib import Path

from privyseal.usb.vhci import Vhci

__all__ = ["DescribedVhci"]

_HEAD = "hub port sta spd dev      sockfd local_busid"


class DescribedVhci:
    """Two ports of each speed on each of two controllers.

    Attributes:
        attached: What was written to `attach`.
        sockets: The kernel's ends by port.
        errors: What the next writes fail with, by attribute.
    """

    def __init__(self, folder: Path, *, controllers: int = 2) -> None:
        self.folder, self.records = folder / "vhci_hcd.0", folder / "run"
        self.folder.mkdir()
        self.ports = {number: ["hs" if number % 4 < 2 else "ss", 4, 0, 0] for number in range(4 * controllers)}
        self.attached: list[str] = []
        self.sockets: dict[int, socket.socket] = {}
        self.errors: dict[str, list[int]] = {}
        self._show()

    @property
    def vhci(self) -> Vhci:
        return Vhci(folder=self.folder, records=self.records, write=self.write)

    def write(self, path: Path, text: str) -> None:
        numbers = self.errors.get(path.name, [])
        if numbers:
            number = numbers.pop(0)
            raise OSError(number, os.strerror(number))
        if path.name == "attach":
            self.attached.append(text)
            port, descriptor, device_id, speed = map(int, text.split())
            self.sockets[port] = socket.socket(fileno=os.dup(descriptor))
            self.ports[port][1:] = [6, speed, device_id]
        elif path.name == "detach":
            self.let_go(int(text))
        self._show()

    def let_go(self, port: int) -> None:
        """As when the kernel's end was closed."""
        if self.ports[port][1] == 4:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.sockets.pop(port).close()
        self.ports[port][1:] = [4, 0, 0]
        self._show()

    def take(self, port: int, device_id: int = 0x50005) -> None:
        """Somebody else attaches something."""
        self.ports[port][1:] = [6, 2, device_id]
        self._show()

    def _show(self) -> None:
        for first in range(0, len(self.ports), 4):
            rows = [
                f"{kind}  {port:04d} {status:03d} {speed:03d} {device_id:08x} 000000 0-0"
                for port, (kind, status, speed, device_id) in self.ports.items()
                if first <= port < first + 4
            ]
            name = f"status.{first // 4}" if first else "status"
            (self.folder / name).write_text("\n".join([_HEAD, *rows]) + "\n")
