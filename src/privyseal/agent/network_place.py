# SPDX-License-Identifier: Apache-2.0
"""What the agent's host sees of its network, from files of kernel and resolver (proc(5), resolv.conf(5)).

Nothing of it leaves this host or is kept in clear: only keyed hashes are.
"""

import hashlib
import hmac
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.agent.relocation import Network

__all__ = ["NetworkFiles", "SeenNetwork", "hashed"]

_MOST_BYTES: Final = 256 * 1024
_ROUTE_COLUMNS: Final = 8
_ARP_COLUMNS: Final = 6
_IS_GATEWAY: Final = 0x2  #: RTF_GATEWAY
_IS_COMPLETE: Final = 0x2  #: ATF_COM


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenNetwork:
    """In clear: not for any log.

    Attributes:
        gateway: MAC address.
        domain: Search domains.
        subnets: Networks behind the gateway's interface, each as in /proc/net/route.
    """

    gateway: str
    domain: str
    subnets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFiles:
    """Where that is read (IPv4 only)."""

    route: Path = Path("/proc/self/net/route")
    arp: Path = Path("/proc/self/net/arp")
    resolver: Path = Path("/etc/resolv.conf")

    def read(self) -> SeenNetwork | None:
        """The network behind the first default route whose gateway has a MAC address; None if there is none."""
        routes, addresses = tuple(_routes(_lines(self.route))), dict(_addresses(_lines(self.arp)))
        ways = sorted((one for one in routes if one.is_default), key=lambda one: one.metric)
        way = next((one for one in ways if (one.gateway, one.interface) in addresses), None)
        if way is None:
            return None
        subnets = {one.subnet for one in routes if one.interface == way.interface and not one.gateway}
        return SeenNetwork(
            gateway=addresses[way.gateway, way.interface],
            domain=_domain(_lines(self.resolver)),
            subnets=tuple(sorted(subnets)),
        )


def hashed(seen: SeenNetwork, salt: bytes) -> Network:
    """The same so that it can be compared, and by whoever does not have the salt not even guessed."""

    def keyed(label: str, value: str) -> str:
        return hmac.digest(salt, f"{label}\0{value}".encode(), hashlib.sha256).hex() if value else ""

    return Network(
        gateway=keyed("gateway", seen.gateway),
        domain=keyed("domain", seen.domain),
        subnets=keyed("subnets", " ".join(seen.subnets)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    interface: str
    subnet: str
    gateway: str
    metric: int

    @property
    def is_default(self) -> bool:
        return bool(self.gateway) and self.subnet == "00000000/00000000"


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def _routes(lines: list[str]) -> Iterator[_Route]:
    """Columns: interface, destination, gateway, flags, two counters, metric, mask; in the byte order of the host."""
    for line in lines[1:]:
        columns = line.split()
        if len(columns) < _ROUTE_COLUMNS:
            continue
        interface, destination, gateway, flags, _, _, metric, mask = columns[:_ROUTE_COLUMNS]
        try:
            is_gateway = int(flags, 16) & _IS_GATEWAY
            yield _Route(
                interface=interface,
                subnet=f"{destination}/{mask}",
                gateway=_dotted(gateway) if is_gateway else "",
                metric=int(metric),
            )
        except (ValueError, struct.error):
            continue


def _dotted(address: str) -> str:
    return socket.inet_ntoa(struct.pack("=I", int(address, 16)))


def _addresses(lines: list[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """Columns: address, kind, flags, MAC address, mask, interface."""
    for line in lines[1:]:
        columns = line.split()
        if len(columns) < _ARP_COLUMNS:
            continue
        address, _, flags, mac, _, interface = columns[:_ARP_COLUMNS]
        try:
            if int(flags, 16) & _IS_COMPLETE and int(mac.replace(":", ""), 16):
                yield (address, interface), mac.lower()
        except ValueError:
            continue


def _domain(lines: list[str]) -> str:
    """The last `search` or `domain` line counts."""
    found = ""
    for line in lines:
        keyword, *names = line.split() or [""]
        if keyword in ("search", "domain"):
            found = " ".join(sorted(name.lower().rstrip(".") for name in names)).strip()
    return found
