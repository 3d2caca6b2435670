# SPDX-License-Identifier: Apache-2.0
"""Which source is asked when: order, fallback, patience, deadlines; on a clock that the test owns."""

import datetime as dt
import hashlib
from collections.abc import Callable

import pytest

from pki_samples import signer, tsa
from privyseal.client.timestamping import Patience, Timestamper
from privyseal.errors import (
    DeniedError,
    PrivysealError,
    UnavailableError,
    UnsupportedInputError,
    VerificationError,
)
from privyseal.pki import tsp
from privyseal.wire.tsa import BusyError
from tsa_samples import made_by_hand, other_nonce

ROOTS = (tsa().root.der,)
DOWN = UnavailableError("tsa.unreachable", "it cannot be reached: no route")
WRONG = UnsupportedInputError("tsa.http_status", "it answers with HTTP 404")


def wait_for(seconds: float | None) -> BusyError:
    return BusyError("tsa.busy", "it answers with HTTP 429", retry_after_seconds=seconds)


class Time:
    """A monotonic clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Source:
    """Answers with errors first, then honestly for ever; each exchange takes `takes` seconds."""

    def __init__(self, name: str, time: Time, *errors: PrivysealError, always: PrivysealError | None = None) -> None:
        self.name = name
        self.time = time
        self.errors = list(errors)
        self.always = always
        self.takes = 0.0
        self.asked: list[tuple[bytes, float]] = []
        self.answer: Callable[[bytes], bytes] = made_by_hand

    def ask(self, request: bytes, seconds: float) -> bytes:
        self.asked.append((request, seconds))
        self.time.now += min(self.takes, seconds)
        error = self.errors.pop(0) if self.errors else self.always
        if error is not None:
            raise error
        return self.answer(request)


def timestamper(time: Time, *sources: Source, anchors: tuple[bytes, ...] = ROOTS, total: float = 120.0) -> Timestamper:
    return Timestamper(
        sources, anchors, patience=Patience(total_seconds=total), monotonic=lambda: time.now, wait=time.wait
    )


def failure(subject: Timestamper) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        subject.token(b"signature", "sha256")
    return caught.value


@pytest.fixture
def time() -> Time:
    return Time()


def test_the_first_source_is_asked_and_no_other(time: Time) -> None:
    first, second = Source("first", time), Source("second", time)

    token = timestamper(time, first, second).token(b"signature", "sha256")

    assert tsp.parse_token(token).imprint == hashlib.sha256(b"signature").digest()
    assert (len(first.asked), len(second.asked), time.waits) == (1, 0, [])


def test_each_question_has_a_nonce_of_its_own(time: Time) -> None:
    source = Source("tsa", time, DOWN)
    subject = timestamper(time, source)

    for _ in range(2):
        subject.token(b"signature", "sha256")

    nonces = {tsp.parse_request(request).nonce for request, _ in source.asked}
    assert len(nonces) == 3
    assert all(nonce for nonce in nonces)


@pytest.mark.parametrize("error", [DOWN, WRONG, wait_for(5)])
def test_a_source_that_fails_gives_way_to_the_next_at_once(time: Time, error: PrivysealError) -> None:
    first, second = Source("first", time, always=error), Source("second", time)

    timestamper(time, first, second).token(b"signature", "sha256")

    assert (len(first.asked), len(second.asked), time.waits) == (1, 1, [])


def test_a_lie_is_not_taken_and_the_next_is_asked(time: Time) -> None:
    first, second = Source("first", time), Source("second", time)
    first.answer = lambda request: other_nonce(request).body
    told: list[str] = []
    subject = Timestamper((first, second), ROOTS, notice=told.append)

    token = subject.token(b"signature", "sha256")

    assert tsp.parse_token(token).nonce == tsp.parse_request(second.asked[0][0]).nonce
    assert len(told) == 1
    assert told[0].startswith("no timestamp from first: ")
    assert told[0].endswith("[tsp.nonce]")


def test_a_source_that_failed_is_asked_last_for_a_while(time: Time) -> None:
    first, second = Source("first", time, DOWN), Source("second", time)
    subject = timestamper(time, first, second)

    subject.token(b"one", "sha256")
    subject.token(b"two", "sha256")
    time.now += 61
    subject.token(b"three", "sha256")

    assert (len(first.asked), len(second.asked)) == (2, 2)


def test_patience_is_what_the_source_asks_for_and_others_know_of_it(time: Time) -> None:
    source = Source("tsa", time, wait_for(7))
    subject = timestamper(time, source)

    subject.token(b"one", "sha256")

    assert time.waits == [7]
    other = Source("other", time)
    both = timestamper(time, source, other)
    source.errors = [wait_for(50)]
    both.token(b"two", "sha256")
    both.token(b"three", "sha256")
    assert (len(source.asked), len(other.asked)) == (3, 2)


def test_without_a_word_of_it_the_pauses_grow(time: Time) -> None:
    source = Source("tsa", time, DOWN, wait_for(None))

    timestamper(time, source).token(b"signature", "sha256")

    assert time.waits == [2, 4]


def test_attempts_are_counted(time: Time) -> None:
    source = Source("tsa", time, always=DOWN)

    error = failure(timestamper(time, source))

    assert (error.code, error.exit_status, error.retryable) == ("timestamp.unavailable", 7, True)
    assert len(source.asked) == 3


def test_patience_that_lasts_longer_than_the_deadline_is_not_had(time: Time) -> None:
    source = Source("tsa", time, always=wait_for(3600))
    subject = timestamper(time, source)

    first, again = failure(subject), failure(subject)

    assert time.waits == []
    assert len(source.asked) == 1  # asked to be left alone: nobody asks again
    assert "HTTP 429" in first.message
    assert "left alone, for 3600 s more" in again.message
    assert again.retryable


def test_the_deadline_is_one_for_all(time: Time) -> None:
    sources = [Source(name, time, always=DOWN) for name in ("a", "b", "c", "d")]
    for source in sources:
        source.takes = 50.0

    failure(timestamper(time, *sources, total=45.0))

    assert [seconds for source in sources for _, seconds in source.asked] == [20, 20, 5]


def test_every_source_is_named_with_its_reason(time: Time) -> None:
    error = failure(timestamper(time, Source("first", time, always=WRONG), Source("second", time, always=DOWN)))

    assert error.message == f"no TSA gave a timestamp: first: {WRONG}; second: {DOWN}"
    assert error.hint == "try again later, or name another TSA with --timestamp"
    assert error.exit_status == 7


def test_what_no_waiting_mends_is_not_tried_again(time: Time) -> None:
    unknown_root = timestamper(time, Source("tsa", time), anchors=(signer().root.der,))

    error = failure(unknown_root)

    assert isinstance(error, VerificationError)
    assert (error.code, error.retryable, time.waits) == ("timestamp.refused", False, [])
    assert "[chain.untrusted]" in error.message
    assert "if you trust it, name its root certificate in `trust`" in error.hint


def test_a_clock_that_is_wrong_is_said(time: Time) -> None:
    late = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    source = Source("tsa", time)
    subject = Timestamper((source,), ROOTS, clock=lambda: int(late.timestamp() * 1000))

    error = failure(subject)

    assert "[tsp.clock]" in error.message
    assert error.hint == "check this machine's clock"


def test_what_the_hub_says_of_the_caller_is_not_hidden(time: Time) -> None:
    denied = DeniedError("policy.profile", "no")

    assert failure(timestamper(time, Source("hub", time, always=denied), Source("other", time))) is denied
