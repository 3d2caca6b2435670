# SPDX-License-Identifier: Apache-2.0
"""Who looks at the URBs of an export: sees all of it, answers in the device's place, and ends it."""

import asyncio
import errno

import pytest

from lab.piv.ccid import BULK_IN, INTERRUPT_IN, CcidToken
from lab.piv.vpcd import ATR
from privyseal.usb.exporter import EndedBy
from privyseal.usb.ports import Done
from privyseal.usb.tap import SessionEnd, TapAnswer
from privyseal.usbip.in_flight import Unlinked
from privyseal.usbip.urb import Answer, CmdSubmit, Direction, RetSubmit
from usb_client import GET_DESCRIPTOR, Client
from virtual_usb import SELECT, VirtualBus, VirtualPort, exported

pytest_plugins = ["usb_export_fixtures"]


class Tap:
    """Records what passes; may answer or end it."""

    def __init__(self) -> None:
        self.seen: list[tuple[CmdSubmit, Answer | None]] = []
        self.own = 0
        self.answers: dict[bytes, TapAnswer] = {}
        self.ends_before: bytes | None = None
        self.ends_after: bytes | None = None
        self.error: Exception = SessionEnd("a second PIN attempt")

    def before(self, command: CmdSubmit) -> TapAnswer | None:
        self.seen.append((command, None))
        if self.ends_before is not None and self.ends_before in command.data:
            raise self.error
        return next((answer for part, answer in self.answers.items() if part in command.data), None)

    def after(self, command: CmdSubmit, answer: Answer, *, is_own: bool) -> None:
        self.seen.append((command, answer))
        self.own += is_own
        if isinstance(answer, RetSubmit) and self.ends_after is not None and self.ends_after in answer.data:
            raise self.error


async def test_a_tap_sees_everything_once_and_in_order(bus: VirtualBus, token: CcidToken) -> None:
    tap = Tap()
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    waiting = client.machine.submit(Direction.IN, INTERRUPT_IN & 15, 8)
    client.ccid(0x62)
    client.read()
    await client.next()
    await client.next()
    client.machine.unlink(waiting)
    await client.next()
    client.read()
    client.machine.submit(Direction.IN, 0, 18, setup=GET_DESCRIPTOR)
    await client.next()
    client.socket.close()
    await export.report()

    told = [(command.address, type(answer).__name__) for command, answer in tap.seen]
    assert told == [
        (0x83, "NoneType"),
        (0x02, "NoneType"),
        (0x81, "NoneType"),
        (0x02, "RetSubmit"),
        (0x81, "RetSubmit"),
        (0x83, "RetUnlink"),
        (0x81, "NoneType"),
        (0x80, "NoneType"),
        (0x80, "RetSubmit"),
        (0x81, "RetSubmit"),
    ]
    assert isinstance(tap.seen[4][1], RetSubmit)
    assert tap.seen[4][1].data[0] == 0x80


async def test_a_tap_answers_in_the_devices_place(bus: VirtualBus, token: CcidToken) -> None:
    tap = Tap()
    tap.answers[SELECT] = TapAnswer(status=-errno.EPERM)
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    client.ccid(0x6F, SELECT)

    assert (await client.next()).status == -errno.EPERM
    assert "submit 02" not in bus.log
    client.socket.close()
    assert (await export.report()).statistics.answered_by_tap == 1


REFUSED = bytes.fromhex("80 02000000 00 05 00 00 00 6982")


def refusing_select() -> Tap:
    """Keeps SELECT from the card, and lets the client read that it was refused."""
    tap = Tap()
    tap.answers[SELECT] = TapAnswer(status=0, read_next=REFUSED, read_next_address=BULK_IN)
    return tap


@pytest.mark.parametrize("order", ["command, read", "read, command"])
async def test_a_tap_lets_the_client_read_a_refusal(bus: VirtualBus, token: CcidToken, order: str) -> None:
    tap = refusing_select()
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    reads = []
    for part in order.split(", "):
        if part == "read":
            reads.append(client.read())
        else:
            client.ccid(0x6F, SELECT)
    answers = {one.seqnum: one for one in (await client.next(), await client.next())}

    assert answers[reads[0]] == RetSubmit(seqnum=reads[0], status=0, actual_length=12, data=REFUSED)
    assert all(one.status == 0 for one in answers.values())
    assert (token.station.state.commands, tap.own) == ((), 2)
    # What follows is the reader's own again.
    client.ccid(0x65, sequence=9)
    last = client.read()
    answers = {one.seqnum: one for one in (await client.next(), await client.next())}
    assert answers[last].data[6] == 9
    client.socket.close()
    assert (await export.report()).was_powered_off


async def test_a_refusal_is_read_in_parts_by_small_reads(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus, tap=refusing_select())
    client = await Client(export.client).imported()
    small = [client.machine.submit(Direction.IN, BULK_IN & 15, 5) for _ in range(3)]
    client.ccid(0x6F, SELECT)
    answers = {one.seqnum: one for one in [await client.next() for _ in range(4)]}

    assert b"".join(answers[seqnum].data for seqnum in small) == REFUSED
    client.socket.close()
    await export.report()


async def test_a_refusal_waits_for_what_the_reader_had_said_already(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus, tap=refusing_select())
    client = await Client(export.client).imported()
    for turn in range(50):
        first, second = client.read(), client.read()
        client.ccid(0x65, sequence=turn)
        await client.send()
        for _ in range(turn % 5):
            await asyncio.sleep(0)
        client.ccid(0x6F, SELECT)
        answers = {one.seqnum: one for one in [await client.next() for _ in range(4)]}
        read = [answers[first].data, answers[second].data]
        assert sorted(map(len, read)) == [10, 12]
        assert REFUSED in read
    client.socket.close()
    await export.report()


class Partial(VirtualPort):
    """A device that has begun to answer when it is asked to give a transfer up."""

    def _withdraw(self, tag: int) -> bool:
        if super()._withdraw(tag):
            del self._open[tag]
            done = Done(tag=tag, status=-errno.ENOENT, actual_length=5, data=b"begun")
            self.loop.call_soon(self._on_done, done)
        return False


async def test_a_refusal_waits_for_what_the_reader_has_begun_to_say(bus: VirtualBus, token: CcidToken) -> None:
    bus.port_class = Partial
    export = await exported(bus, tap=refusing_select())
    client = await Client(export.client).imported()
    first = client.read()
    client.ccid(0x6F, SELECT)
    answers = {one.seqnum: one for one in (await client.next(), await client.next())}
    second = client.read()

    assert answers[first] == RetSubmit(seqnum=first, status=0, actual_length=5, data=b"begun")
    assert await client.next() == RetSubmit(seqnum=second, status=0, actual_length=12, data=REFUSED)
    client.socket.close()
    await export.report()


async def test_a_read_that_is_unlinked_as_a_refusal_comes_leaves_it_to_the_next(
    bus: VirtualBus, token: CcidToken
) -> None:
    export = await exported(bus, tap=refusing_select())
    client = await Client(export.client).imported()
    first = client.read()
    client.machine.unlink(first)
    client.ccid(0x6F, SELECT)
    arrived = [await client.next(), await client.next()]
    assert Unlinked(seqnum=first, status=-errno.ECONNRESET, was_answered=False) in arrived

    again = client.read()

    assert await client.next() == RetSubmit(seqnum=again, status=0, actual_length=12, data=REFUSED)
    client.socket.close()
    await export.report()


@pytest.mark.parametrize("error", [SessionEnd("a second PIN attempt"), ZeroDivisionError("a bug")])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_tap_ends_the_export_and_nothing_passes_unseen(
    bus: VirtualBus, token: CcidToken, moment: str, error: Exception
) -> None:
    tap = Tap()
    tap.error = error
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    client.ccid(0x62)
    client.read()
    await client.next()
    await client.next()
    if moment == "before":
        tap.ends_before = SELECT
    else:
        tap.ends_after = bytes.fromhex("61114F06")
    client.ccid(0x6F, SELECT)
    client.read()

    arrived = [one for one in [await client.next(), await client.next(), await client.next()] if one is not None]

    assert [one.status for one in arrived][-1] == -errno.ESHUTDOWN
    assert all(one.data == b"" for one in arrived)
    report = await export.report()
    assert report.ended_by is (EndedBy.TAP if isinstance(error, SessionEnd) else EndedBy.FAILURE)
    assert str(error) in report.reason
    assert (report.was_powered_off, report.was_reset, token._is_on) == (True, True, False)
    assert token.station.state.commands == () if moment == "before" else True


async def test_the_last_answer_that_a_tap_allows_still_reaches_the_client(bus: VirtualBus, token: CcidToken) -> None:
    tap = Tap()
    tap.error = SessionEnd("operations used up", with_answer=True)
    tap.ends_after = ATR
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    client.ccid(0x62)
    reading = client.read()
    answers = {one.seqnum: one for one in (await client.next(), await client.next())}

    assert answers[reading].data[10:] == ATR
    assert await client.next() is None
    report = await export.report()
    assert (report.ended_by, report.reason) == (EndedBy.TAP, "operations used up")
    assert (report.was_powered_off, report.was_reset) == (True, True)


async def test_an_answer_of_a_tap_that_does_not_fit_ends_the_export(bus: VirtualBus, token: CcidToken) -> None:
    tap = Tap()
    tap.answers[b""] = TapAnswer(status=0, data=bytes(19))
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    client.machine.submit(Direction.IN, 0, 18, setup=GET_DESCRIPTOR)

    assert (await client.next()).status == -errno.ESHUTDOWN
    assert (await export.report()).ended_by is EndedBy.FAILURE
