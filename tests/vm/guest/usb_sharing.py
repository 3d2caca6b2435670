# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine: a device exported and attached, by our programs and by Linux's own, on real kernels' sides.

The reader is QEMU's, on port 1 of a hub that switches its ports; at 10.0.2.2 the host of the tests exports the lab's
token. Writes what happened to /results/checks.json.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from privyseal.usb.power import cycle_port
from privyseal.usb.selector import parse_selector
from vm.guest import card
from vm.guest.account import AS_ACCOUNT, add_account, add_rules
from vm.guest.checks import Evidence, awaited, run_checks
from vm.guest.network import HOST, raise_network
from vm.guest.sharing_tools import (
    BUS_ID,
    DISK,
    DISK_BUS_ID,
    KERNELS_PORT,
    PORT,
    READER,
    TOKEN,
    attached,
    block_device,
    digest,
    driver_of,
    host,
    imported_device,
    kernel_log,
    ports,
    reachable,
    run,
    serving,
    signed,
    timed,
)

given = json.loads(Path("/results/given.json").read_text())


async def signs_where_it_is() -> Evidence:
    return await signed("signs_where_it_is")


async def is_refused_while_pcscd_has_it() -> Evidence:
    card.start_pcscd()
    before = await asyncio.to_thread(card.sign, "before")
    serve = await serving()
    role, said = await attached()
    report = await serve.says()
    after = await asyncio.to_thread(card.sign, "after")
    await serve.ended()
    await role.ended()
    await asyncio.to_thread(card.stop_pcscd)
    return {"said": said, "report": report, "before": before, "after": after}


async def signs_through_ours() -> Evidence:
    log = kernel_log()
    serve = await serving()
    role, said = await attached()
    bus_id = await imported_device(READER)
    listed = run("usbip", "port")
    evidence = await signed("signs_through_ours")
    driver = driver_of(BUS_ID)
    role.end()
    detached = await role.says()
    report = await serve.says()
    await role.ended()
    await serve.ended()
    records = sorted(path.name for path in Path("/var/run/vhci_hcd").iterdir())
    local = await signed("given_back")
    return evidence | {
        "said": said,
        "bus_id": bus_id,
        "listed": listed,
        "driver": driver,
        "detached": detached,
        "report": report,
        "records": records,
        "ports": ports(),
        "log": kernel_log()[len(log) :],
        "local": local["signature"],
    }


async def is_attached_by_the_stock_client() -> Evidence:
    serve = await serving()
    listed = run("usbip", "--tcp-port", str(PORT), "list", "-r", "127.0.0.1")
    asked = await serve.says()
    rounds = []
    for turn in range(2):
        run("usbip", "--tcp-port", str(PORT), "attach", "-r", "127.0.0.1", "-b", BUS_ID)
        await imported_device(READER)
        evidence = await signed(f"stock_{turn}")
        run("usbip", "detach", "-p", "00")
        rounds.append(evidence | {"report": await serve.says()})
    await serve.ended()
    return {"listed": listed, "asked": asked, "rounds": rounds, "ports": ports()}


async def attaches_from_the_kernels_server() -> Evidence:
    run("modprobe", "usbip_host")
    run("usbip", "bind", "-b", BUS_ID)
    server = subprocess.Popen(["usbipd", "-4", "-t", str(KERNELS_PORT)], stdout=subprocess.DEVNULL)
    try:
        await reachable(KERNELS_PORT)
        role, said = await attached(port=KERNELS_PORT)
        await imported_device(READER)
        evidence = await signed("from_the_kernels_server")
        role.end()
        detached = await role.says()
        await role.ended()
        run("usbip", "attach", "-r", "127.0.0.1", "-b", BUS_ID)
        await imported_device(READER)
        kernels = await signed("kernel_to_kernel")
        run("usbip", "detach", "-p", "00")
        await awaited(host, BUS_ID)
        evidence |= {"said": said, "detached": detached, "kernels": kernels, "urbs": await timed(KERNELS_PORT)}
    finally:
        server.terminate()
        server.wait()
        run("usbip", "unbind", "-b", BUS_ID)
    await awaited(host, READER)
    serve = await serving()
    ours = await timed(PORT)
    report = await serve.says()
    await serve.ended()
    return evidence | {"our_urbs": ours, "report": report, "ports": ports()}


async def two_clients_at_once() -> Evidence:
    serve = await serving()
    first, said = await attached()
    await imported_device(READER)
    second, refused = await attached()
    report = await serve.says()
    evidence = await signed("two_clients")
    await second.ended()
    await first.ended()
    last = await serve.says()
    await serve.ended()
    return evidence | {"said": said, "refused": refused, "report": report, "last": last}


async def a_lease_ends_under_a_frozen_client() -> Evidence:
    serve = await serving()
    role, said = await attached()
    await imported_device(READER)
    card.start_pcscd()
    during = await asyncio.to_thread(card.sign, "during")
    role.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    serve.process.send_signal(signal.SIGUSR1)
    report = await serve.says()
    seconds = time.monotonic() - began
    # The frozen side's pcscd still waits for the reader that it cannot reach: what it does not do is hold ours.
    driver = driver_of(BUS_ID)
    still = ports()
    role.process.send_signal(signal.SIGCONT)
    detached = await role.says()
    await role.ended()
    await asyncio.to_thread(card.stop_pcscd)
    await serve.ended()
    local = await signed("after_a_frozen_client")
    return {
        "said": said,
        "during": during,
        "report": report,
        "seconds": seconds,
        "driver": driver,
        "still": still,
        "detached": detached,
        "ports": ports(),
        "local": local["signature"],
    }


async def a_client_detaches_from_a_frozen_exporter() -> Evidence:
    serve = await serving()
    role, said = await attached()
    await imported_device(READER)
    serve.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    role.end()
    detached = await role.says()
    seconds = time.monotonic() - began
    await role.ended()
    left = ports()
    serve.process.send_signal(signal.SIGCONT)
    report = await serve.says()
    await serve.ended()
    return {"said": said, "detached": detached, "seconds": seconds, "ports": left, "report": report}


async def the_exporter_is_killed() -> Evidence:
    serve = await serving()
    role, said = await attached()
    await imported_device(READER)
    during = await signed("before_a_kill")
    serve.process.kill()
    detached = await role.says()
    await role.ended()
    driver = driver_of(BUS_ID)
    local = await signed("after_a_kill")
    return {
        "said": said,
        "during": during["signature"],
        "detached": detached,
        "driver": driver,
        "ports": ports(),
        "local": local["signature"],
    }


async def is_unplugged() -> Evidence:
    serve = await serving()
    role, said = await attached()
    await imported_device(READER)
    card.start_pcscd()
    during = await asyncio.to_thread(card.sign, "before_unplugging")
    await cycle_port(host, await host.find(parse_selector(BUS_ID)), off_seconds=1)
    report = await serve.says()
    detached = await role.says()
    await role.ended()
    await asyncio.to_thread(card.stop_pcscd)
    again, said_again = await attached()
    await imported_device(READER)
    evidence = await signed("after_unplugging")
    await again.ended()
    last = await serve.says()
    await serve.ended()
    return evidence | {
        "said": said,
        "during": during,
        "report": report,
        "detached": detached,
        "said_again": said_again,
        "last": last,
    }


async def signs_through_the_hosts_exporter() -> Evidence:
    """The lab's token: by our attach, then by the stock client."""
    rounds = []
    role, said = await attached(HOST, given["port"], "1-1")
    bus_id = await imported_device(TOKEN)
    rounds.append(await signed("virtual_ours", ignored="433-Swap", key_id="01", pin=given["pin"]))
    await role.ended()
    run("usbip", "--tcp-port", str(given["port"]), "attach", "-r", HOST, "-b", "1-1")
    await imported_device(TOKEN)
    rounds.append(await signed("virtual_stock", ignored="433-Swap", key_id="01", pin=given["pin"]))
    run("usbip", "detach", "-p", "00")
    return {"said": said, "bus_id": bus_id, "rounds": rounds, "ports": ports()}


async def moves_a_disk() -> Evidence:
    """What a token never does: large transfers, to a device that a driver of the kernel has."""
    run("modprobe", "-a", "usb_storage", "sd_mod")
    await block_device(DISK_BUS_ID)
    before = driver_of(DISK_BUS_ID)
    serve = await serving(DISK_BUS_ID)
    role, said = await attached(bus_id=DISK_BUS_ID)
    bus_id = await imported_device(DISK)
    node = await block_device(bus_id)
    began = time.monotonic()
    read = await asyncio.to_thread(digest, node)
    seconds = time.monotonic() - began
    during = driver_of(DISK_BUS_ID)

    def write() -> None:
        with node.open("r+b", buffering=0) as disk:
            disk.seek(1 << 20)
            disk.write(b"written over USB/IP".ljust(1 << 20, b"."))
            os.fsync(disk.fileno())

    await asyncio.to_thread(write)
    role.end()
    detached = await role.says()
    await role.ended()
    report = await serve.says()
    await serve.ended()
    local = await block_device(DISK_BUS_ID)
    return {
        "drivers": [before, during, driver_of(DISK_BUS_ID)],
        "said": said,
        "read": read,
        "seconds": seconds,
        "detached": detached,
        "report": report,
        "local": await asyncio.to_thread(digest, local),
    }


async def serves_as_the_agents_account() -> Evidence:
    """Without capabilities, by the udev rules alone; the other side must be root."""
    add_account()
    serve = await serving(before=AS_ACCOUNT)
    role, refused = await attached()
    denied = await serve.says()
    await role.ended()
    add_rules()
    role, said = await attached()
    await imported_device(READER)
    evidence = await signed("as_the_account")
    await role.ended()
    report = await serve.says()
    await serve.ended()
    return evidence | {"refused": refused, "denied": denied, "said": said, "report": report}


CHECKS = (
    signs_where_it_is,
    is_refused_while_pcscd_has_it,
    signs_through_ours,
    is_attached_by_the_stock_client,
    attaches_from_the_kernels_server,
    two_clients_at_once,
    a_lease_ends_under_a_frozen_client,
    a_client_detaches_from_a_frozen_exporter,
    the_exporter_is_killed,
    is_unplugged,
    signs_through_the_hosts_exporter,
    moves_a_disk,
    serves_as_the_agents_account,
)


async def main() -> None:
    subprocess.run(["modprobe", "-a", "virtio_net", "af_packet", "vhci_hcd"], check=True)
    raise_network()
    await awaited(host, READER)
    chosen = given["checks"].split()
    await run_checks([check for check in CHECKS if not chosen or check.__name__ in chosen])


if __name__ == "__main__":
    asyncio.run(main())
