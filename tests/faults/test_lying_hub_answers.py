# SPDX-License-Identifier: Apache-2.0
"""A hub that lies to its client: about which items it answers for, about whose, or without end (promises 1 and 8)."""

import datetime as dt
import hashlib
import itertools
import resource
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from lying_hub import PROFILE
from lying_web import Answer, WebHub, running_hub
from pe_samples import make_pe
from privyseal.client.digests import DigestSigner
from privyseal.client.hub import HubClient
from privyseal.client.journal import RequestJournal
from privyseal.client.receipts import receipt_path
from privyseal.client.signing import Outcome, Plan, Signer, Work
from privyseal.client.transport import WebTransport, web_context
from privyseal.errors import IdentityError, PrivysealError, UnavailableError
from privyseal.wire.api import ItemView, RequestView

replace = msgspec.structs.replace


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WebHub]:
    (tmp_path / "hub").mkdir()
    with running_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def works(tmp_path: Path) -> tuple[Work, ...]:
    """Three programs."""
    folder = tmp_path / "dist"
    folder.mkdir()
    files = [folder / f"{place}.exe" for place in range(3)]
    for place, file in enumerate(files):
        file.write_bytes(make_pe(overlay=bytes([place]) * 8))
    return tuple(Work(path=file, target=file) for file in files)


def sign(hub: WebHub, works: tuple[Work, ...]) -> tuple[Outcome, ...]:
    return Signer(hub.config, profile=PROFILE).sign_all(works, Plan())


def test_an_honest_hub_first(hub: WebHub, works: tuple[Work, ...]) -> None:
    outcomes = sign(hub, works)

    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert all(outcome.signed is not None and receipt_path(outcome.work.path).exists() for outcome in outcomes)


def _each_alone_for_ever(view: RequestView) -> RequestView:
    return replace(view, first=0, items=view.items[:1] or (ItemView(state="failed"),))


LIES: dict[str, Callable[[RequestView], RequestView]] = {
    "the first is passed over": lambda view: replace(view, first=view.first + 1),
    "all are passed over": lambda view: replace(view, first=3, items=()),
    "before the first": lambda view: replace(view, first=-1, items=(*view.items[:1], *view.items)),
    "the first without end": _each_alone_for_ever,
    "one twice": lambda view: replace(view, first=max(0, view.first - 1), items=view.items[:2] or view.items),
    "more than were asked for": lambda view: replace(view, items=(*view.items, *view.items)),
    "of another request": lambda view: replace(view, id="0" * 64),
    "a state that nobody knows": lambda view: replace(
        view, items=tuple(replace(item, state="perhaps") for item in view.items)
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_answers_for_other_items_than_those_asked_for(
    hub: WebHub, works: tuple[Work, ...], lie: Callable[[RequestView], RequestView]
) -> None:
    hub.lie = lie

    before = [work.path.read_bytes() for work in works]
    try:
        outcomes = sign(hub, works)
    except PrivysealError as error:
        assert error.code == "hub.answer"  # noqa: PT017 - either way is well
        outcomes = tuple(Outcome(work=work, error=error) for work in works)

    for outcome, content in zip(outcomes, before, strict=True):
        is_signed = outcome.work.path.read_bytes() != content
        assert (outcome.signed is not None) == is_signed
        assert is_signed or outcome.error is not None, "a file that was not signed is not passed over in silence"
    assert any(outcome.error is not None for outcome in outcomes)


def test_one_digest_too(hub: WebHub) -> None:
    hub.lie = LIES["all are passed over"]
    signer = DigestSigner(hub.config, profile=PROFILE)

    with pytest.raises(UnavailableError, match=r"hub\.answer"):
        signer.sign("sha256", hashlib.sha256(b"words").digest())


def left_without_place(hub: WebHub, works: tuple[Work, ...]) -> None:
    """Have all signed, but put none into place."""
    for work in works:
        receipt_path(work.target).mkdir()
    assert all(outcome.error is not None for outcome in sign(hub, works))
    for work in works:
        receipt_path(work.target).rmdir()


def kept(hub: WebHub) -> list[str]:
    return [request.id for request in RequestJournal(hub.config.identity.journal).open_requests()]


def test_signatures_of_a_key_that_was_replaced_meanwhile_are_made_anew(hub: WebHub, works: tuple[Work, ...]) -> None:
    left_without_place(hub, works)
    hub.renew()

    outcomes = sign(hub, works)

    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert hub.signatures == 6
    assert kept(hub) == []


def test_a_request_under_another_name_is_not_ours(hub: WebHub, works: tuple[Work, ...]) -> None:
    left_without_place(hub, works)
    (path,) = hub.config.identity.journal.iterdir()
    path.rename(path.with_name("0" * 64 + ".request.json"))

    assert [outcome.error for outcome in sign(hub, works)] == [None] * 3


def test_what_another_run_left_for_other_files_is_not_forgotten(hub: WebHub, works: tuple[Work, ...]) -> None:
    left_without_place(hub, works)

    for work in works:
        assert [outcome.error for outcome in sign(hub, (work,))] == [None]

    assert hub.signatures == 3
    assert len(kept(hub)) == 1, "nobody knows here that each of its files came"
    assert [outcome.error for outcome in sign(hub, works)] == [None] * 3
    assert (hub.signatures, kept(hub)) == (3, [])


def _endless(piece: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: itertools.repeat(piece)


def _bomb() -> Iterator[bytes]:
    """A gigabyte of spaces in a megabyte."""
    packer = zlib.compressobj(9, wbits=31)
    for _ in range(1024):
        yield packer.compress(b" " * (1 << 20))
    yield packer.flush()


CLOSE = (("Connection", "close"),)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(headers=CLOSE, pieces=_endless(b" " * (1 << 20))),
        Answer(headers=(("Content-Length", str(1 << 40)),), pieces=_endless(b" " * (1 << 20))),
        Answer(headers=(*CLOSE, ("Content-Encoding", "gzip")), pieces=_bomb),
        Answer(status=500, headers=CLOSE, pieces=_endless(b" " * (1 << 20))),
    ],
    ids=["endless", "announced", "compressed", "problem"],
)
def test_more_than_an_answer(hub: WebHub, answer: Answer) -> None:
    """Memory stays bounded."""
    hub.answer = lambda _: answer
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(UnavailableError, match=r"hub\.answer"):
        HubClient(hub.config).profile(PROFILE)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


@pytest.mark.parametrize(("days", "words"), [(-4000, "has expired"), (2, "is not yet valid")])
def test_dates_that_do_not_hold_are_blamed_on_a_clock_first(tmp_path: Path, days: int, words: str) -> None:
    with running_hub(tmp_path, dt.timedelta(days=days)) as hub, pytest.raises(IdentityError) as caught:
        HubClient(hub.config).profile(PROFILE)

    assert caught.value.code == "hub.certificate"
    assert words in caught.value.message
    assert "clock" in caught.value.hint


def test_an_answer_that_drips(hub: WebHub) -> None:
    hub.answer = lambda _: Answer(headers=CLOSE, pieces=hub.drip)
    web = WebTransport(hub.config.web_urls[0], web_context(hub.trust.bundle.statement.ca), answer_seconds=1.0)

    with pytest.raises(UnavailableError, match=r"hub\.answer"):
        web.request("GET", "/log/checkpoint")


def test_a_page_in_the_place_of_an_answer_tells_nothing_of_the_request(hub: WebHub, works: tuple[Work, ...]) -> None:
    """The hub has signed; a proxy between loses its answer."""
    page = b"<html>one moment, please</html>"

    def answer(line: str) -> Answer | None:
        return (
            Answer(headers=(("Content-Length", str(len(page))),), pieces=lambda: iter((page,)))
            if hides and "signatures" in line
            else None
        )

    hides = False
    hub.answer = answer
    left_without_place(hub, works)
    hides = True
    with pytest.raises(UnavailableError, match=r"hub\.answer"):
        sign(hub, works)
    hides = False

    assert [outcome.error for outcome in sign(hub, works)] == [None] * 3
    assert hub.signatures == 3
