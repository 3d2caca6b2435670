# SPDX-License-Identifier: Apache-2.0
"""The PIN journal: what may be presented after which history, over restarts, torn lines and many processes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import TokenError
from privyseal.ports.token import PinState
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_history import Histories, JournalLine, objection
from privyseal.tokens.pin_journal import PinAttempt, PinJournal

RIGHT, OTHER = b"canary-right", b"canary-other"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pin.journal"


def buffer(pin: bytes) -> PinBuffer:
    filled = PinBuffer()
    filled.fill(pin)
    return filled


@contextmanager
def attempt(
    path: Path, pin: bytes = RIGHT, *, serial: str = "S1", state: PinState = PinState.OK
) -> Iterator[PinAttempt]:
    """An attempt after a restart: nothing is known but what stands in the file."""
    with PinJournal(str(path)).attempt(serial=serial, pin=buffer(pin), pin_state=state) as made:
        yield made


def accept(path: Path, pin: bytes = RIGHT, *, serial: str = "S1") -> None:
    with attempt(path, pin, serial=serial) as made:
        made.conclude("accepted")


def refuse(path: Path, pin: bytes = OTHER) -> None:
    with attempt(path, pin) as made:
        made.conclude("refused")


def lose(path: Path, pin: bytes = RIGHT) -> None:
    """An attempt whose process dies before it knows."""
    with attempt(path, pin):
        pass


def assert_blocked(path: Path, pin: bytes = RIGHT, *, serial: str = "S1", state: PinState = PinState.OK) -> None:
    before = path.read_bytes()
    with pytest.raises(TokenError) as caught, attempt(path, pin, serial=serial, state=state):
        pytest.fail("the PIN would have been presented")
    assert caught.value.code == "token.pin_blocked"
    assert path.read_bytes() == before, "a refusal of ours is no attempt"


def test_an_attempt_is_on_disk_before_the_pin_is_presented(path: Path) -> None:
    with attempt(path):
        line = msgspec.json.decode(path.read_bytes())

    assert (line["event"], line["serial"]) == ("attempt", "S1")


def test_the_journal_is_private_and_holds_no_pin(path: Path) -> None:
    accept(path)
    with attempt(path, OTHER) as made:
        made.conclude("refused")

    assert path.stat().st_mode & 0o777 == 0o600
    assert b"canary" not in path.read_bytes()
    assert RIGHT.hex().encode() not in path.read_bytes()


def test_an_accepted_pin_may_come_again_and_again(path: Path) -> None:
    for _ in range(3):
        accept(path)

    assert not PinJournal(str(path)).history("S1").blocked


def test_a_refusal_blocks_every_pin_of_that_token_until_a_person_clears_it(path: Path) -> None:
    accept(path)
    refuse(path)

    assert_blocked(path, OTHER)
    assert_blocked(path, RIGHT)
    accept(path, OTHER, serial="S2")
    PinJournal(str(path)).clear("S1")
    accept(path, RIGHT)


def test_a_cleared_token_still_gets_no_pin_that_it_refused(path: Path) -> None:
    refuse(path, OTHER)
    PinJournal(str(path)).clear("S1")
    assert_blocked(path, OTHER)

    PinJournal(str(path)).clear("S1", forgive_refused=True)
    accept(path, OTHER)


def test_an_unknown_outcome_blocks_a_pin_that_was_never_accepted(path: Path) -> None:
    lose(path)

    assert_blocked(path)
    PinJournal(str(path)).clear("S1")
    accept(path)


def test_after_an_unknown_outcome_an_accepted_pin_has_one_more_try(path: Path) -> None:
    accept(path)
    lose(path)
    for state in (PinState.COUNT_LOW, PinState.FINAL_TRY):
        assert_blocked(path, state=state)
    assert_blocked(path, OTHER)
    lose(path)

    assert_blocked(path)


def test_a_known_outcome_starts_anew(path: Path) -> None:
    accept(path)
    for _ in range(3):
        lose(path)
        accept(path)


def test_an_attempt_that_the_module_never_judged_does_not_count(path: Path) -> None:
    for _ in range(3):
        with attempt(path) as made:
            made.conclude("not-judged")

    accept(path)


def test_a_locked_token_and_a_final_try_keep_the_pin_back(path: Path) -> None:
    with pytest.raises(TokenError) as caught, attempt(path, state=PinState.LOCKED):
        pytest.fail("the PIN would have been presented")
    assert caught.value.code == "token.pin_locked"
    PinJournal(str(path)).clear("S2")
    assert_blocked(path, state=PinState.FINAL_TRY)

    accept(path)
    with attempt(path, state=PinState.FINAL_TRY) as made:
        made.conclude("accepted")


def test_a_torn_line_is_an_attempt_of_unknown_outcome(path: Path) -> None:
    accept(path)
    whole = path.read_bytes()
    for torn in (b'{"event":"att', b'{"event":"cleared","at_ms":1,"serial":"S1"}', b"\x00\xff"):
        path.write_bytes(whole + torn)
        assert_blocked(path, OTHER)
        assert_blocked(path, serial="S2")

        accept(path)
        assert torn + b" torn\n" in path.read_bytes(), "the torn line stays, on its own"
        accept(path)
        assert_blocked(path, serial="S2")


def test_tearing_the_outcome_of_the_second_try_allows_no_third(path: Path) -> None:
    accept(path)
    lose(path)
    accept(path)
    path.write_bytes(path.read_bytes()[:-5])

    assert_blocked(path)


def test_a_large_journal_is_compacted_and_forgets_nothing(path: Path) -> None:
    accept(path)
    refuse(path, OTHER)
    for _ in range(2):
        PinJournal(str(path)).clear("S1")
    lose(path)
    before = PinJournal(str(path)).history("S1")
    noise = b'{"event":"cleared","at_ms":1,"serial":"S2"}\n'
    path.write_bytes(path.read_bytes() + noise * 7000)
    size = path.stat().st_size

    after = PinJournal(str(path)).history("S1")

    assert after == before
    assert path.stat().st_size < 2000
    assert path.with_name("pin.journal.old").stat().st_size == size
    assert_blocked(path, OTHER)
    accept(path)
    assert_blocked(path, OTHER)


def test_compaction_keeps_what_an_unreadable_line_says(path: Path) -> None:
    path.write_bytes(b"unreadable\n" + b'{"event":"cleared","at_ms":1,"serial":"S2"}\n' * 7000)

    assert PinJournal(str(path)).history("S1").unknown == 1
    assert path.stat().st_size < 2000
    assert_blocked(path, serial="S1")
    accept(path, serial="S2")


def test_a_journal_that_cannot_be_written_keeps_the_pin_back(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "pin.journal", tmp_path):
        with pytest.raises(TokenError) as caught, attempt(path):
            pytest.fail("the PIN would have been presented")
        assert caught.value.code == "token.pin_journal"


def test_a_journal_behind_a_symbolic_link_is_refused(tmp_path: Path, path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(TokenError) as caught, attempt(path):
        pytest.fail("the PIN would have been presented")
    assert caught.value.code == "token.pin_journal"


def test_a_hanging_login_of_one_token_does_not_hold_up_another(path: Path) -> None:
    with attempt(path, serial="S1") as hanging:
        accept(path, serial="S2")
        hanging.conclude("accepted")

    assert [PinJournal(str(path)).history(serial).unknown for serial in ("S1", "S2")] == [0, 0]


def test_attempts_at_once_wait_for_each_other(path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with attempt(path, OTHER) as made:
            order.append("second")
            made.conclude("accepted")

    with attempt(path) as made:
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
        made.conclude("accepted")
    thread.join(10)

    assert order == ["first", "second"], "the second saw an outcome, not an attempt in progress"


# What the replay believes, without scrypt in between.

events = st.lists(
    st.tuples(
        st.sampled_from(["attempt", "accepted", "refused", "not-judged", "cleared"]),
        st.sampled_from(["S1", "S2"]),
        st.sampled_from(["aaa", "bbb"]),
    ),
    max_size=12,
)


def encoded(steps: list[tuple[str, str, str]]) -> list[bytes]:
    """A journal as a driver would write it: an outcome stands only behind an attempt."""
    lines: list[bytes] = []
    tried: set[str] = set()
    for event, serial, fingerprint in steps:
        if event in ("accepted", "refused", "not-judged") and serial not in tried:
            continue
        tried = tried | {serial} if event == "attempt" else tried - {serial}
        salt = "0" * 32 if event == "attempt" else ""
        shown = fingerprint if event == "attempt" else ""
        line = JournalLine(event=event, at_ms=1, serial=serial, salt=salt, fingerprint=shown)  # type: ignore[arg-type]
        lines.append(msgspec.json.encode(line) + b"\n")
    return lines


def replay(journal: bytes) -> Histories:
    histories = Histories()
    for line in journal.splitlines(keepends=True):
        histories.add(line)
    return histories


@given(events)
def test_no_pin_comes_after_its_own_refusal_unless_it_was_accepted_since(steps: list[tuple[str, str, str]]) -> None:
    lines = encoded(steps)
    histories = replay(b"".join(lines))
    for serial in ("S1", "S2"):
        refused: set[str] = set()
        tried = ""
        for line in map(msgspec.json.decode, lines):
            if line["serial"] != serial:
                continue
            tried = line.get("fingerprint", tried) if line["event"] == "attempt" else tried
            if line["event"] == "refused":
                refused.add(tried)
            elif line["event"] == "accepted":
                refused.discard(tried)
        for fingerprint in refused:
            assert objection(histories.get(serial), fingerprint, PinState.OK)


@given(events.filter(encoded), st.data())
def test_a_journal_torn_anywhere_keeps_new_pins_from_every_token(
    steps: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    lines = encoded(steps)
    last = lines[-1]
    torn = replay(b"".join(lines[:-1]) + last[: data.draw(st.integers(1, len(last) - 1))])

    assert all(objection(torn.get(serial), "ccc", PinState.OK) for serial in ("S1", "S2", "S3"))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_journal(noise: bytes) -> None:
    histories = replay(noise)

    assert bool(noise) == bool(objection(histories.get("S1"), "aaa", PinState.OK))


@given(events)
def test_a_state_line_says_the_same_as_the_lines_before_it(steps: list[tuple[str, str, str]]) -> None:
    histories = replay(b"".join(encoded(steps)))
    again = replay(histories.lines(2))

    assert [again.get(serial) for serial in ("S1", "S2", "S3")] == [
        histories.get(serial) for serial in ("S1", "S2", "S3")
    ]
