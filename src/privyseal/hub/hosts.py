# SPDX-License-Identifier: Apache-2.0
"""Whether an address is this very host's: a witness there says nothing that the hub could not say itself."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Final

__all__ = ["SameHost", "same_host"]

#: Judges a numeric IP address.
SameHost = Callable[[str], bool]

#: Any port will do: nothing is sent.
_DISCARD: Final = 9


def same_host(address: str) -> bool:
    """Whether an IP address is one of this host's own, loopback addresses included.

    A host reaches its own addresses from themselves: the kernel's choice of a source address tells. What is no address
    counts as here: whoever cannot be placed is not relied on.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback or found.is_unspecified:
        return True
    family = socket.AF_INET if found.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(found), _DISCARD))
        except OSError:
            return False
        return bool(probe.getsockname()[0] == str(found))
