# SPDX-License-Identifier: Apache-2.0
"""Reset and power cycle on a described kernel: what is asked of it, what is awaited, what each refusal becomes."""

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from privyseal.errors import UsbError
from privyseal.usb.calls import CallError
from privyseal.usb.devices import UsbDevice
from privyseal.usb.host import UsbHost
from privyseal.usb.power import cycle_port
from privyseal.usb.reset import reset_device
from privyseal.usb.selector import parse_selector
from usb_tree import GANGED, NO_SWITCH, PER_PORT, DescribedKernel, UsbTree, hub_descriptor

SOON = 0.1


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    made = UsbTree(tmp_path)
    made.attach("1-1", number=2, ids="0409:55aa", classes=(9,), device_class=9, product="Hub", serial=None)
    made.attach("1-1.4", number=5)
    return made


@pytest.fixture
def kernel() -> DescribedKernel:
    return DescribedKernel()


async def token(host: UsbHost, bus_id: str = "1-1.4") -> UsbDevice:
    return await host.find(parse_selector(bus_id))


async def test_a_reset_leaves_the_device_as_it_was(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    before = await token(host)

    assert await reset_device(host, before) == before
    assert kernel.asked == [("reset", before.node)]
    assert kernel.open_news == 0


@pytest.mark.parametrize("number", [None, errno.ENODEV, errno.ENOENT])
async def test_a_device_that_goes_by_its_reset_is_awaited(
    tree: UsbTree, kernel: DescribedKernel, number: int | None
) -> None:
    host = kernel.host(tree)
    before = await token(host)
    kernel.doing["reset"] = lambda: tree.detach("1-1.4")
    if number is not None:
        kernel.errors["reset"] = CallError(number, "reset")
    node = tree.nodes / "001" / "006"

    def node_is_missing() -> None:
        tree.detach("1-1.4")
        tree.attach("1-1.4", number=6)
        node.unlink()

    kernel.then = [lambda: tree.attach("1-1.4", number=6, classes=()), node_is_missing, node.touch]

    after = await reset_device(host, before)

    assert (after.device_number, after.node, kernel.then) == (6, node, [])
    assert after.is_same_as(before)


async def test_another_device_in_its_port_is_not_taken_for_it(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    before = await token(host)
    tree.detach("1-1.4")
    kernel.then = [lambda: tree.attach("1-1.4", number=6, serial="9999")]

    with pytest.raises(UsbError, match=r"did not come back within 0\.1 s; there is .* serial number '9999'") as caught:
        await reset_device(host, before, return_seconds=SOON)

    assert (caught.value.code, kernel.open_news) == ("usb.not_back", 0)


@pytest.mark.parametrize("do", [reset_device, cycle_port])
async def test_another_device_in_its_port_is_left_alone(
    tree: UsbTree, kernel: DescribedKernel, do: Callable[[UsbHost, UsbDevice], Awaitable[UsbDevice]]
) -> None:
    host = kernel.host(tree)
    before = await token(host)
    tree.detach("1-1.4")
    tree.attach("1-1.4", number=5, serial="9999")

    with pytest.raises(UsbError, match="serial number '9999' now") as caught:
        await do(host, before)

    assert (caught.value.code, kernel.asked, kernel.open_news) == ("usb.other_device", [], 0)


async def test_a_device_is_reset_by_the_node_that_it_has_now(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    before = await token(host)
    tree.detach("1-1.4")
    tree.attach("1-1.4", number=9)
    tree.attach("1-3", number=5, serial="9999")

    assert (await reset_device(host, before)).device_number == 9
    assert kernel.asked == [("reset", tree.nodes / "001" / "009")]


async def test_a_device_that_does_not_even_show_is_power_cycled(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    before = await token(host)
    tree.detach("1-1.4")
    kernel.then = [lambda: tree.attach("1-1.4", number=6)]

    assert (await cycle_port(host, before)).device_number == 6
    assert [call[0] for call in kernel.asked] == ["describe", "cycle_by_hub"]


async def test_a_device_that_stays_away(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    before = await token(host)
    tree.detach("1-1.4")

    with pytest.raises(UsbError, match="there is nothing"):
        await reset_device(host, before, return_seconds=SOON)


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EACCES, "usb.denied"), (errno.EPERM, "usb.denied"), (errno.ETIMEDOUT, "usb.reset_failed")],
)
async def test_why_a_reset_failed(tree: UsbTree, kernel: DescribedKernel, number: int, code: str) -> None:
    host = kernel.host(tree)
    kernel.errors["reset"] = CallError(number, "open")

    with pytest.raises(UsbError) as caught:
        await reset_device(host, await token(host))

    assert (caught.value.code, kernel.open_news) == (code, 0)
    assert "1-1.4 (0529:0620 Token JC)" in caught.value.message


def comes_back(tree: UsbTree, kernel: DescribedKernel, bus_id: str = "1-1.4") -> None:
    kernel.then = [lambda: tree.detach(bus_id), lambda: tree.attach(bus_id, number=6)]


async def test_a_power_cycle_by_the_kernels_switch(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    switch = tree.port("1-1:1.0", "1-1-port4")
    comes_back(tree, kernel)

    after = await cycle_port(host, await token(host), off_seconds=2)

    assert after.device_number == 6
    assert kernel.asked == [("describe", tree.nodes / "001" / "002"), ("cycle_by_kernel", switch, 2)]


async def test_both_sides_of_a_port_of_usb_3_are_switched(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    switch, other = tree.port("1-1:1.0", "1-1-port4"), tree.port("2-1:1.0", "2-1-port4")
    (switch.parent / "peer").symlink_to(other.parent)
    comes_back(tree, kernel)

    await cycle_port(host, await token(host), off_seconds=2)

    assert kernel.asked[1] == ("cycle_by_kernel", switch, switch.parent / "peer" / "disable", 2)


async def test_a_port_of_the_host_itself(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    tree.attach("2-3", number=4, serial="77")
    switch = tree.port("2-0:1.0", "usb2-port3")
    comes_back(tree, kernel, "2-3")
    before = await token(host, "2-3")
    kernel.then[1] = lambda: tree.attach("2-3", number=6, serial="77")

    await cycle_port(host, before, off_seconds=2)

    assert kernel.asked == [("describe", tree.nodes / "002" / "001"), ("cycle_by_kernel", switch, 2)]


@pytest.mark.parametrize(("kind", "is_superspeed"), [(0x29, False), (0x2A, True)])
async def test_an_older_kernel_leaves_it_to_the_hub(
    tree: UsbTree, kernel: DescribedKernel, kind: int, *, is_superspeed: bool
) -> None:
    host = kernel.host(tree)
    kernel.descriptor = hub_descriptor(kind=kind)
    comes_back(tree, kernel)

    await cycle_port(host, await token(host), off_seconds=2)

    assert kernel.asked[1] == ("cycle_by_hub", tree.nodes / "001" / "002", 4, is_superspeed, 2)


@pytest.mark.parametrize(("mode", "told"), [(GANGED, "all its ports only together"), (NO_SWITCH, "no port")])
async def test_a_hub_without_a_switch_for_each_port_is_used_only_if_forced(
    tree: UsbTree, kernel: DescribedKernel, mode: int, told: str
) -> None:
    host = kernel.host(tree)
    kernel.descriptor = hub_descriptor(mode=mode)
    before = await token(host)

    with pytest.raises(UsbError, match=told) as caught:
        await cycle_port(host, before)
    assert (caught.value.code, [call[0] for call in kernel.asked]) == ("usb.no_port_power", ["describe"])

    comes_back(tree, kernel)
    assert (await cycle_port(host, before, force=True)).device_number == 6


async def test_a_hub_that_only_says_that_it_switches(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    kernel.descriptor = hub_descriptor(mode=PER_PORT)

    with pytest.raises(UsbError, match="there is the same, as number 5") as caught:
        await cycle_port(host, await token(host), return_seconds=SOON)

    assert caught.value.code == "usb.not_back"


@pytest.mark.parametrize(
    ("verb", "refusal", "code"),
    [
        ("describe", CallError(errno.EACCES, "open"), "usb.denied"),
        ("describe", CallError(errno.EPIPE, "describe"), "usb.power_failed"),
        ("cycle_by_kernel", CallError(errno.EACCES, "off"), "usb.denied"),
        ("cycle_by_kernel", CallError(errno.EIO, "off"), "usb.power_failed"),
        ("cycle_by_kernel", CallError(errno.EIO, "on"), "usb.power_off"),
        ("cycle_by_kernel", CallError(errno.EACCES, "on"), "usb.power_off"),
    ],
)
async def test_why_a_power_cycle_failed(
    tree: UsbTree, kernel: DescribedKernel, verb: str, refusal: CallError, code: str
) -> None:
    host = kernel.host(tree)
    tree.port("1-1:1.0", "1-1-port4")
    kernel.errors[verb] = refusal

    with pytest.raises(UsbError) as caught:
        await cycle_port(host, await token(host))

    assert (caught.value.code, kernel.open_news) == (code, 0)


async def test_a_hub_that_describes_itself_wrongly(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    kernel.descriptor = b"\x09\x29"

    with pytest.raises(UsbError, match="describes itself wrongly"):
        await cycle_port(host, await token(host), force=True)


async def test_a_hub_that_is_gone(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    before = await token(host)
    (tree.sysfs / "1-1").unlink()

    with pytest.raises(UsbError, match=r"the hub 1-1, .* is gone"):
        await cycle_port(host, before)


async def test_an_imported_device_has_no_port_here(tree: UsbTree, kernel: DescribedKernel) -> None:
    host = kernel.host(tree)
    tree.attach("3-1", number=2, host="platform/vhci_hcd.0", serial="55")

    with pytest.raises(UsbError) as caught:
        await cycle_port(host, await token(host, "3-1"))

    assert (caught.value.code, kernel.asked) == ("usb.imported", [])
