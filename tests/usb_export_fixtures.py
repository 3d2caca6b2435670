# SPDX-License-Identifier: Apache-2.0
"""A virtual token on a bus that is exported, and what must not be left after a test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lab.piv.ccid import CcidToken
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.station import Station
from usb_client import PIN, SLOT
from virtual_usb import VirtualBus


@pytest.fixture(scope="module")
def token_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {SLOT: "p256"})


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
async def bus() -> AsyncIterator[VirtualBus]:
    """What is exported of it ends with its tasks, its sockets, and the device given back."""
    bus = VirtualBus()
    files = open_files()
    before = asyncio.all_tasks()
    yield bus
    for export in bus.exports:
        export.client.close()
        await asyncio.wait({export.serving}, timeout=20)
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    assert left == set()
    assert not bus.is_held
    assert open_files() <= files


@pytest.fixture
def token(bus: VirtualBus, token_keys: dict[int, CardKey]) -> Iterator[CcidToken]:
    token = CcidToken(Station(token_keys, pin=PIN), bus)
    yield token
    if bus.plugged is not None:
        token.unplug()
