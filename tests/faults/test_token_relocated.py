# SPDX-License-Identifier: Apache-2.0
"""A token that is carried to another port, imported over the network, or whose host is in another network."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from failing_journal import Faults
from privyseal.agent.config import TokenTable
from privyseal.agent.custody_spans import Reason
from privyseal.agent.network_place import SeenNetwork
from privyseal.agent.relocation_watch import RelocationWatch
from privyseal.agent.turns import Turns
from privyseal.errors import UnavailableError
from privyseal.storage.connection import Connect
from privyseal.storage.connection import connect as sqlite_connect
from privyseal.storage.journal import SqliteJournal
from usb_tree import DescribedKernel, UsbTree

OFFICE = SeenNetwork(gateway="5c:a6:e6:01:02:03", domain="lab.example", subnets=("0000000A/0000FFFF",))
ELSEWHERE = replace(OFFICE, gateway="a4:2b:b0:04:05:06")


class NoCard:
    """A token whose card nobody can measure."""

    def __init__(self) -> None:
        self.asked = 0

    async def probe(self, count: int) -> tuple[int, ...] | None:
        assert count > 0
        self.asked += 1
        return None


@dataclass(kw_only=True)
class Place:
    """One host, described by files; each `watch` is a start of the agent."""

    directory: Path
    tree: UsbTree
    network: SeenNetwork | None = OFFICE
    token: NoCard = field(default_factory=NoCard)
    connect: Connect = sqlite_connect
    journals: list[SqliteJournal] = field(default_factory=list)

    async def watch(self, **table: Any) -> RelocationWatch:
        journal = await SqliteJournal.open(self.directory / "journal.db", origin="hub.example", connect=self.connect)
        self.journals.append(journal)
        settings = {"name": "lab", "kind": "pkcs11", "usb": "0529:0620"} | table
        return RelocationWatch(
            TokenTable(**settings),
            self.token,
            turns=Turns(),
            journal=journal,
            usb=DescribedKernel().host(self.tree),
            network=lambda: self.network,
            is_busy=lambda: False,
        )


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    tree = UsbTree(tmp_path)
    tree.attach("1-1.4")
    made = Place(directory=tmp_path, tree=tree)
    yield made
    for journal in made.journals:
        await journal.close()


async def looks(watch: RelocationWatch, count: int = 1, *, anew: bool = False) -> tuple[Reason, ...]:
    """Look so often; `anew` as if a minute lay in between."""
    for _ in range(count):
        if anew:
            watch.came()
        await watch.looked()
    return watch.standing


def to_other_port(tree: UsbTree) -> None:
    tree.detach("1-1.4")
    tree.attach("1-1.3")


def to_other_controller(tree: UsbTree) -> None:
    tree.detach("1-1.4")
    tree.attach("1-1.4", host="pci0000:00/0000:00:1d.0")


def to_other_hub(tree: UsbTree) -> None:
    tree.detach("1-1.4")
    tree.attach("1-2.4")


def to_the_network(tree: UsbTree) -> None:
    tree.detach("1-1.4")
    tree.attach("3-1", host="platform/vhci_hcd.0")


@pytest.mark.parametrize(
    ("move", "signal"),
    [
        (to_other_port, Reason.USB_PORT),
        (to_other_hub, Reason.USB_PORT),
        (to_other_controller, Reason.USB_PORT),
        (to_the_network, Reason.USB_IMPORTED),
    ],
)
async def test_a_move_is_noticed_with_the_next_look_also_over_a_restart(
    place: Place, move: Callable[[UsbTree], None], signal: Reason
) -> None:
    assert await looks(await place.watch(), 3) == ()
    move(place.tree)

    with capture_logs() as told:
        assert await looks(await place.watch()) == (signal,)
    assert [(one["event"], one["signals"]) for one in told] == [("token may be in another place", [signal.value])]


async def test_a_host_that_was_started_again_is_the_same_place(place: Place) -> None:
    await looks(await place.watch())
    place.tree.detach("1-1.4")
    place.tree.attach("4-1.4", number=11)

    assert await looks(await place.watch()) == ()


async def test_a_port_that_is_named_and_empty_while_the_token_answers_is_a_signal(place: Place) -> None:
    watch = await place.watch(usb="1-1.4")
    assert await looks(watch) == ()
    to_other_port(place.tree)

    assert await looks(watch, 3) == ()
    assert await looks(watch) == (Reason.USB_PORT,)


async def test_another_network_is_noticed_and_never_in_clear(place: Place) -> None:
    watch = await place.watch()
    await looks(watch)
    place.network = ELSEWHERE
    assert await looks(watch, 20) == (), "the network is looked at once a minute"
    with capture_logs() as told:
        assert await looks(watch, 4, anew=True) == (Reason.NETWORK,)

    kept = b"".join(path.read_bytes() for path in place.directory.glob("journal.db*"))
    for secret in (OFFICE.gateway, ELSEWHERE.gateway, OFFICE.domain, *OFFICE.subnets):
        assert secret.encode() not in kept
        assert secret not in repr(told)


async def test_a_router_that_starts_anew_is_no_signal(place: Place) -> None:
    watch = await place.watch()
    await looks(watch)
    for seen in (None, replace(OFFICE, domain=""), ELSEWHERE, OFFICE, None, OFFICE):
        place.network = seen
        assert await looks(watch, anew=True) == ()


async def test_what_a_person_accepts_is_the_place_from_then_on(place: Place) -> None:
    watch = await place.watch(relocation="quarantine")
    await looks(watch)
    to_the_network(place.tree)
    await looks(watch)
    problem = watch.problem
    assert problem is not None
    assert (problem.code, "usb-imported" in problem.message) == ("token.relocated", True)
    place.tree.detach("3-1")
    place.tree.attach("1-1.4")
    again = await place.watch(relocation="quarantine")
    assert await looks(again, 5) == (Reason.USB_IMPORTED,), "it was away: coming back does not clear that"

    assert await again.accept()
    assert (again.standing, again.problem) == ((), None)
    assert await looks(await place.watch(relocation="quarantine"), 3) == ()
    assert not await again.accept()
    assert await looks(again) == ()
    to_other_port(place.tree)
    assert await looks(again) == (Reason.USB_PORT,)


async def test_a_quiet_place_costs_no_write_with_each_look(place: Place) -> None:
    faults = Faults()
    watch = await replace(place, connect=faults.connect).watch()
    await looks(watch, 10, anew=True)
    faults.fail_at = "INSERT"
    assert await looks(watch, 20, anew=True) == ()


async def test_a_full_disk_hides_no_signal(place: Place) -> None:
    faults = Faults()
    watch = await replace(place, connect=faults.connect).watch()
    await looks(watch)
    faults.fail_at = "INSERT"
    to_other_port(place.tree)
    with pytest.raises(UnavailableError):
        await watch.looked()
    assert watch.standing == (Reason.USB_PORT,)
    faults.fail_at = ""
    assert await looks(watch) == (Reason.USB_PORT,)

    assert (await place.watch()).standing == ()
    assert await looks(await place.watch()) == (Reason.USB_PORT,)


@pytest.mark.parametrize("table", [{"relocation": "off"}, {"kind": "software"}])
async def test_nothing_is_looked_at_where_nobody_wants_to_know(place: Place, table: dict[str, str]) -> None:
    watch = await place.watch(**table)
    await looks(watch)
    to_the_network(place.tree)

    assert await looks(watch, 5) == ()
    assert place.token.asked == 0
    assert not await watch.accept()


async def test_a_card_that_cannot_be_measured_is_asked_once_each_time_it_comes(place: Place) -> None:
    watch = await place.watch()
    await looks(watch, 10)
    assert place.token.asked == 1
    watch.came()
    await looks(watch, 10)
    assert place.token.asked == 2
