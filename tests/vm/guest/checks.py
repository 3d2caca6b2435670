# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine: checks one after the other. Writes what happened to /results/checks.json after each."""

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from privyseal.errors import PrivysealError
from privyseal.usb.devices import UsbDevice
from privyseal.usb.host import UsbHost
from privyseal.usb.selector import parse_selector
from privyseal.usb.uevents import KernelChanges

__all__ = ["Evidence", "awaited", "refusal", "run_checks"]

Evidence = dict[str, object]
_SECONDS = 200


async def refusal(action: Awaitable[object]) -> str:
    """The code of the error that it ends with; empty if it ends well."""
    try:
        await action
    except PrivysealError as error:
        return error.code
    return ""


async def awaited(host: UsbHost, selector: str) -> UsbDevice:
    """A device as soon as it is there, with its interfaces."""
    news = KernelChanges()
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    device = await host.find(parse_selector(selector))
                except PrivysealError:
                    device = None
                if device is not None and device.interface_classes and device.node.exists():
                    return device
                await news.wait(0.5)
    finally:
        news.close()


async def run_checks(checks: Iterable[Callable[[], Awaitable[Evidence]]]) -> None:
    results: dict[str, object] = {}
    for check in checks:
        began = time.monotonic()
        try:
            async with asyncio.timeout(_SECONDS):
                evidence = await check()
        except BaseException:  # noqa: BLE001 - whatever it is, the host must hear of it
            evidence = {"failed": traceback.format_exc()}
        results[check.__name__] = evidence | {"wall_seconds": time.monotonic() - began}
        Path("/results/checks.json").write_text(json.dumps(results, indent=1))
