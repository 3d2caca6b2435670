# SPDX-License-Identifier: Apache-2.0
"""The place of a token in a test: USB by files, and a network that nobody sees unless the test says otherwise."""

from collections.abc import Callable
from pathlib import Path

from privyseal.agent.config import TokenTable
from privyseal.agent.network_place import SeenNetwork
from privyseal.agent.relocation_watch import Probed, RelocationWatch
from privyseal.agent.turns import Turns
from privyseal.ports.journal import AgentJournal
from privyseal.usb.host import UsbHost

__all__ = ["place_watch"]


def place_watch(
    table: TokenTable,
    token: Probed,
    *,
    turns: Turns,
    journal: AgentJournal,
    usb: UsbHost | None = None,
    network: Callable[[], SeenNetwork | None] = lambda: None,
    is_busy: Callable[[], bool] = lambda: False,
) -> RelocationWatch:
    nowhere = UsbHost(sysfs=Path("/nonexistent"), nodes=Path("/nonexistent"))
    return RelocationWatch(
        table, token, turns=turns, journal=journal, usb=usb or nowhere, network=network, is_busy=is_busy
    )
