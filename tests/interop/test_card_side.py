# SPDX-License-Identifier: Apache-2.0
"""A card's own counter, its comings and goings, and who else is connected, as a real pcscd shows them."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from lab.card_lab import PIN, CardLab, card_lab
from privyseal.errors import TokenError
from privyseal.ports.token import KeyCounter, ReaderUse
from privyseal.tokens.card_side import CardSide
from privyseal.tokens.pcsc import Pcsc
from privyseal.tokens.pcsc_clients import connected, own_connections
from programs import until

pytestmark = pytest.mark.interop

READER = "Lab reader 00 00"

#: Looks each time it is asked, and says what it sees: own connections, all connections.
_LOOKING = """
import sys
from privyseal.tokens.card_side import CardSide
side = CardSide("openpgp")
side.counters(sys.argv[1])
for _ in sys.stdin:
    use = side.reader_use(sys.argv[1])
    print(use.own, use.connections, flush=True)
"""
_STRANGER = """
import sys
from privyseal.tokens.pcsc import Pcsc
pcsc = Pcsc()
print("connected", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[CardLab]:
    with card_lab() as lab, pytest.MonkeyPatch.context() as patch:
        for name, value in lab.environment.items():
            patch.setenv(name, value)  # libpcsclite reads it once in the life of a process
        yield lab


def _reinsert(reader: CardLab) -> None:
    reader.remove_card()
    reader.insert_card()


@pytest.fixture
def side(reader: CardLab) -> Iterator[CardSide]:
    opened = CardSide("openpgp")
    yield opened
    opened.close()


def _count(side: CardSide) -> int:
    (counter,) = side.counters(READER)
    assert counter == KeyCounter(key_id=b"\x01", count=counter.count, source="OpenPGP card, DO 93")
    return counter.count


def _use(side: CardSide) -> ReaderUse:
    use = side.reader_use(READER)
    assert use is not None
    return use


def test_uses_behind_our_back_show_in_the_counter(reader: CardLab, side: CardSide) -> None:
    before = _count(side)
    (reader.directory / "data").write_bytes(b"a release")

    for _ in range(3):
        reader.pkcs11_tool(
            *("--login", "--pin", PIN.decode(), "--sign", "--id", "01", "--mechanism", "SHA256-RSA-PKCS"),
            *("--input-file", str(reader.directory / "data"), "--output-file", str(reader.directory / "signature")),
        )

    assert _count(side) == before + 3


def test_the_counter_outlives_the_cards_absence(reader: CardLab, side: CardSide) -> None:
    before = _count(side)

    _reinsert(reader)

    assert _count(side) == before


def test_a_card_that_came_and_went_between_two_looks_is_noticed(reader: CardLab, side: CardSide) -> None:
    side.counters(READER)
    before = _use(side).card_events
    assert before is not None

    _reinsert(reader)

    assert _use(side).card_events == before + 2


@contextlib.contextmanager
def _program(source: str, *prefix: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", source, READER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def _said(program: "subprocess.Popen[bytes]") -> str:
    assert program.stdout is not None
    return program.stdout.readline().decode().strip()


@pytest.fixture
def looking(reader: CardLab) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that looks, in a network namespace of its own: whatever else runs on this machine is not seen there."""
    with _program(_LOOKING, "unshare", "--net") as program:
        yield program


def _seen(looking: "subprocess.Popen[bytes]") -> str:
    assert looking.stdin is not None
    looking.stdin.write(b"look\n")
    looking.stdin.flush()
    return _said(looking)


def test_another_program_is_counted_while_it_is_connected(looking: "subprocess.Popen[bytes]") -> None:
    assert _seen(looking) == "1 1"

    with _program(_STRANGER, "nsenter", "--net", "--target", str(looking.pid)) as stranger:
        assert _said(stranger) == "connected"
        assert _seen(looking) == "1 2"

    until(lambda: _seen(looking) == "1 1", "pcscd lets go of the connection that ended")


def test_a_program_in_another_network_namespace_is_not_seen(looking: "subprocess.Popen[bytes]") -> None:
    """A limit, which docs/custody.md names."""
    with _program(_STRANGER, "unshare", "--net") as stranger:
        assert _said(stranger) == "connected"
        assert _seen(looking) == "1 1"


def test_without_a_connection_of_our_own_nobody_can_tell(reader: CardLab) -> None:
    assert CardSide("openpgp").reader_use(READER) is None


def test_a_card_without_that_counter_is_named(reader: CardLab) -> None:
    side = CardSide("smartcard-hsm")

    with pytest.raises(TokenError, match="6D00") as caught:
        side.counters(READER)

    assert caught.value.code == "token.counter"
    side.close()


def test_the_other_reader_holds_no_card(reader: CardLab) -> None:
    pcsc = Pcsc()
    empty = next(name for name in pcsc.readers() if name != READER)

    assert not pcsc.state(empty).present
    with pytest.raises(TokenError) as caught, pcsc.card(empty):
        pass

    assert caught.value.code == "token.not_found"
    pcsc.close()


def test_own_connections_are_counted_by_the_name_of_the_other_end() -> None:
    # Not pytest's tmp_path: a unix socket's path has 108 bytes at most.
    with tempfile.TemporaryDirectory(prefix="privyseal-") as directory, contextlib.ExitStack() as opened:
        name = f"{directory}/pcscd.comm"
        server = opened.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(name)
        server.listen()
        for count in (1, 2):
            opened.enter_context(socket.socket(socket.AF_UNIX)).connect(name)
            opened.enter_context(server.accept()[0])

            assert own_connections() == {name: count}
            assert connected(frozenset((name,))) == count
