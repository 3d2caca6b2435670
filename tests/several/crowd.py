# SPDX-License-Identifier: Apache-2.0
"""A thousand clients that all come back at once after every hub was away."""

import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from several.clients import Client
from several.run import Lab

__all__ = ["crowd", "resident_mib"]


def resident_mib(pid: int) -> float:
    """What a process has in memory."""
    pages = int((Path("/proc") / str(pid) / "statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def crowd(lab: Lab, count: int, *, patience_seconds: float) -> tuple[list[float], list[float]]:
    """Stop every hub, let so many clients ask for one signature each, start the hubs again; then all ask once more.

    Returns:
        MiB that each hub has in memory after the first time, and after the second.
    """
    for hub in lab.cell.hubs.values():
        hub.kill()
    clients = [
        Client(lab.configs[place % len(lab.configs)], first=place % 2, patience_seconds=patience_seconds)
        for place in range(count)
    ]
    with ThreadPoolExecutor(max_workers=count) as threads:
        answers = [threads.submit(client.send, lab.ask(client)) for client in clients]
        for number in lab.cell.hubs:
            lab.cell.start(number)
        for answer in answers:
            answer.result()
        first = _memory(lab)
        for answer in [threads.submit(client.send, lab.ask(client)) for client in clients]:
            answer.result()
    return first, _memory(lab)


def _memory(lab: Lab) -> list[float]:
    return [resident_mib(hub.process.pid) for hub in lab.cell.hubs.values()]
