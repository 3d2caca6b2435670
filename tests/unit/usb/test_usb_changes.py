# SPDX-License-Identifier: Apache-2.0
"""News of devices where the kernel's socket cannot be had; where it can, tests/vm has them."""

import asyncio

import pytest

from privyseal.usb import uevents
from privyseal.usb.uevents import KernelChanges


async def test_without_the_kernels_socket_time_wakes(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket() -> None:
        raise PermissionError

    monkeypatch.setattr(uevents, "_kernel_socket", no_socket)
    news = KernelChanges()

    assert not news.is_told
    await asyncio.wait_for(news.wait(0.01), 30)
    news.close()
    news.close()
