# SPDX-License-Identifier: Apache-2.0
"""What the agent's host sees of its network is read from files, and kept as keyed hashes alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.agent.network_place import NetworkFiles, SeenNetwork, hashed

ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
wg0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t100\t0000FFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
"""
ARP = """\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.1         0x1         0x2         5C:A6:E6:01:02:03     *        eth0
10.0.0.7         0x1         0x2         5c:a6:e6:09:09:09     *        eth0
192.168.1.1      0x1         0x2         a4:2b:b0:04:05:06     *        wlan0
"""
RESOLVER = "# made by DHCP\nnameserver 10.0.0.1\nsearch Lab.Example. example\n"
OFFICE = SeenNetwork(gateway="5c:a6:e6:01:02:03", domain="example lab.example", subnets=("0000000A/0000FFFF",))


class Folder:
    def __init__(self, path: Path) -> None:
        self.files = NetworkFiles(route=path / "route", arp=path / "arp", resolver=path / "resolv.conf")
        self.write(ROUTE, ARP, RESOLVER)

    def write(self, route: str = ROUTE, arp: str = ARP, resolver: str = RESOLVER) -> None:
        self.files.route.write_text(route)
        self.files.arp.write_text(arp)
        self.files.resolver.write_text(resolver)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_network_is_that_of_the_first_gateway_with_a_mac_address(folder: Folder) -> None:
    assert folder.files.read() == OFFICE


def test_networks_of_other_interfaces_are_not_its_place(folder: Folder) -> None:
    folder.write(route="\n".join(line for line in ROUTE.splitlines() if "docker" not in line and "wg0" not in line))

    assert folder.files.read() == OFFICE


def test_where_the_first_gateway_is_unknown_the_next_counts(folder: Folder) -> None:
    folder.write(arp=ARP.replace("0x2         5C:A6:E6:01", "0x0         00:00:00:00"))
    seen = folder.files.read()

    assert seen is not None
    assert (seen.gateway, seen.subnets) == ("a4:2b:b0:04:05:06", ("0001A8C0/00FFFFFF",))


@pytest.mark.parametrize("files", [{"route": ""}, {"arp": ""}, {"route": ROUTE.replace("0003", "0001")}])
def test_a_host_without_a_gateway_has_no_place(folder: Folder, files: dict[str, str]) -> None:
    folder.write(**files)

    assert folder.files.read() is None


def test_files_that_are_not_there_are_no_failure(tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    assert NetworkFiles(route=gone, arp=gone, resolver=gone).read() is None


@given(route=st.text(max_size=400), arp=st.text(max_size=400))
def test_nonsense_in_them_is_no_failure(tmp_path_factory: pytest.TempPathFactory, route: str, arp: str) -> None:
    folder = Folder(tmp_path_factory.mktemp("network"))
    for mixed in ((ROUTE + route, ARP + arp), (route, arp), (ROUTE.replace("0100000A", route[:9] or "x"), ARP)):
        folder.files.route.write_text(mixed[0], "utf-8", "surrogatepass")
        folder.files.arp.write_text(mixed[1], "utf-8", "surrogatepass")
        folder.files.read()


def test_hashes_show_nothing_and_differ_from_agent_to_agent() -> None:
    here, there = hashed(OFFICE, b"a" * 32), hashed(OFFICE, b"b" * 32)

    assert here == hashed(OFFICE, b"a" * 32)
    assert len({here.gateway, here.domain, here.subnets, there.gateway, there.domain, there.subnets}) == 6
    assert "5c:a6" not in repr(here)
    assert hashed(SeenNetwork(gateway="x", domain="", subnets=()), b"a").domain == "", "nothing stays nothing"
