# SPDX-License-Identifier: Apache-2.0
"""A keeper whose token is in another place: held back until a person accepts the place, or used on and on record."""

from pathlib import Path
from typing import Any

import pytest

from kept_token import kept
from lab.fault_shim import FaultyToken, around
from privyseal.usb.host import UsbHost
from softhsm import fresh_softhsm
from usb_tree import DescribedKernel, UsbTree


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


def moved(directory: Path, bus_id: str) -> UsbHost:
    """This host with the token in that port."""
    directory.mkdir()
    tree = UsbTree(directory)
    tree.attach(bus_id)
    return DescribedKernel().host(tree)


async def test_a_token_in_another_port_is_out_of_use_until_a_person_accepts_it(
    faulty: FaultyToken, tmp_path: Path
) -> None:
    table: dict[str, Any] = {"usb_name": "0529:0620", "relocation": "quarantine", "journal": tmp_path / "journal.db"}
    async with kept(faulty, usb=moved(tmp_path / "a", "1-1"), **table) as site:
        assert site.served
    for folder in ("b", "once-more"):
        async with kept(faulty, usb=moved(tmp_path / folder, "1-2"), **table) as site:
            await site.keeper.look()
            assert (site.keeper.state.value, site.problem, site.served) == ("quarantined", "token.relocated", False)
            assert (await site.events())[-1] == "quarantined token.relocated"
            assert site.keeper.health().relocation == ("usb-port",)
            assert site.changes == ["quarantined"], "it was not in use for a moment"
    async with kept(faulty, usb=moved(tmp_path / "c", "1-2"), **table) as site:
        await site.keeper.resume()

        assert site.served
        assert (await site.events())[-2:] == ["resumed token.relocated", "attached"]
        assert site.keeper.health().relocation == ()
    async with kept(faulty, usb=moved(tmp_path / "d", "1-2"), **table) as site:
        assert site.served


async def test_a_token_that_is_moved_while_it_is_in_use_is_quarantined_by_the_next_look(
    faulty: FaultyToken, tmp_path: Path
) -> None:
    tree = UsbTree(tmp_path)
    tree.attach("1-1")
    usb = DescribedKernel().host(tree)
    async with kept(faulty, usb=usb, usb_name="0529:0620", relocation="quarantine") as site:
        tree.detach("1-1")
        tree.attach("1-2", host="platform/vhci_hcd.0")
        await site.keeper.look()

        assert (site.keeper.state.value, site.problem) == ("quarantined", "token.relocated")
        assert site.changes == ["ready", "quarantined"]


async def test_a_token_elsewhere_is_used_on_where_that_is_only_recorded(faulty: FaultyToken, tmp_path: Path) -> None:
    tree = UsbTree(tmp_path)
    tree.attach("1-1")
    usb = DescribedKernel().host(tree)
    async with kept(faulty, usb=usb, usb_name="0529:0620") as site:
        tree.detach("1-1")
        tree.attach("1-2")
        await site.keeper.look()

        assert site.served
        assert site.keeper.health().relocation == ("usb-port",)
