# SPDX-License-Identifier: Apache-2.0
"""The child processes that call the kernel, on files that are no devices: what they do, and how they end."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from privyseal.errors import UsbError
from privyseal.usb import calls
from privyseal.usb.calls import CallError, KernelCalls

CALLS = KernelCalls()


async def refusal(call: object) -> tuple[int | None, str]:
    assert asyncio.iscoroutine(call)
    with pytest.raises(CallError) as caught:
        await call
    return caught.value.errno, caught.value.step


async def test_the_kernel_refuses_what_is_no_device(tmp_path: Path) -> None:
    file, none = tmp_path / "file", tmp_path / "none"
    file.touch()

    assert await refusal(CALLS.reset(file, seconds=30)) == (errno.ENOTTY, "reset")
    assert await refusal(CALLS.reset(none, seconds=30)) == (errno.ENOENT, "open")
    assert await refusal(CALLS.describe(file, seconds=30)) == (errno.ENOTTY, "describe")
    assert await refusal(CALLS.cycle_by_kernel([none], off_seconds=1, seconds=30)) == (errno.ENOENT, "off")
    by_hub = CALLS.cycle_by_hub(file, 1, is_superspeed=False, off_seconds=1, seconds=30)
    assert await refusal(by_hub) == (errno.ENOTTY, "off")


async def test_a_port_is_switched_off_and_on_again(tmp_path: Path) -> None:
    switch, other = tmp_path / "disable", tmp_path / "peer"
    for path in (switch, other):
        os.mkfifo(path)
    readers = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in (switch, other)]

    try:
        await CALLS.cycle_by_kernel([switch, other], off_seconds=0.2, seconds=30)
        assert [os.read(reader, 10) for reader in readers] == [b"10", b"10"]
    finally:
        for reader in readers:
            os.close(reader)


async def test_the_power_comes_back_when_the_caller_gives_up(tmp_path: Path) -> None:
    switch = tmp_path / "disable"
    os.mkfifo(switch)
    reader = os.open(switch, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(switch, os.O_WRONLY)  # so that the end of the child's writing is no end of file
    switched = asyncio.Event()
    asyncio.get_running_loop().add_reader(reader, switched.set)
    try:
        cycle = asyncio.create_task(CALLS.cycle_by_kernel([switch], off_seconds=3600, seconds=30))
        await asyncio.wait_for(switched.wait(), 30)
        assert os.read(reader, 10) == b"1"

        cycle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(cycle, 30)

        assert os.read(reader, 10) == b"0"
    finally:
        asyncio.get_running_loop().remove_reader(reader)
        os.close(reader)
        os.close(writer)


async def test_a_call_that_hangs_is_ended_at_its_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(calls, "_GRACE_SECONDS", 0.5)
    nobody_reads = tmp_path / "disable"
    os.mkfifo(nobody_reads)  # opening it for writing waits for a reader

    with pytest.raises(UsbError, match="did not end within") as caught:
        await asyncio.wait_for(CALLS.cycle_by_kernel([nobody_reads], off_seconds=0, seconds=0.5), 30)

    assert caught.value.code == "usb.no_answer"


async def test_a_child_that_cannot_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    with pytest.raises(UsbError, match="cannot be tried") as missing:
        await CALLS.reset(tmp_path, seconds=30)
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(UsbError, match="ended with status 1 and no answer") as silent:
        await CALLS.reset(tmp_path, seconds=30)
    monkeypatch.setattr("sys.executable", "/bin/echo")
    with pytest.raises(UsbError, match="ended with status 0 and no answer: -P -m"):
        await CALLS.reset(tmp_path, seconds=30)

    assert missing.value.code == silent.value.code == "usb.call_failed"
