# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine: its network, without the programs for that. The host is 10.0.2.2 (QEMU's user network)."""

import fcntl
import socket
import struct

__all__ = ["HOST", "raise_network"]

HOST = "10.0.2.2"
_SET_FLAGS, _SET_ADDRESS, _SET_NETMASK = 0x8914, 0x8916, 0x891C
_UP_AND_RUNNING = 0x41


def _address(name: bytes, address: str) -> bytes:
    return struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(address))


def raise_network() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP_AND_RUNNING))
        card = next(name.encode() for _, name in socket.if_nameindex() if name != "lo")
        fcntl.ioctl(asked, _SET_ADDRESS, _address(card, "10.0.2.15"))
        fcntl.ioctl(asked, _SET_NETMASK, _address(card, "255.255.255.0"))
        fcntl.ioctl(asked, _SET_FLAGS, struct.pack("16sH14x", card, _UP_AND_RUNNING))
