# SPDX-License-Identifier: Apache-2.0
"""Orders for USB leases, and reports of them: one form each, and nothing else is taken for one."""

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError
from privyseal.formats.model import Binding, Preimage
from privyseal.formats.registry import FORMATS, read_preimage
from privyseal.formats.usb import LEASE, LeaseOrder, lease_preimage, read_lease
from privyseal.wire.leases import LeaseReport, LeaseTally, encode_report, read_report

ORDER = LeaseOrder(device="ev-usb", seconds=600, reason="initialise", tls_key="ab" * 32, sealed="cd" * 80)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
orders = st.builds(
    LeaseOrder,
    device=names,
    seconds=st.integers(1, 86_400),
    reason=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
    tls_key=st.binary(min_size=32, max_size=32).map(bytes.hex),
    sealed=st.binary(min_size=48, max_size=256).map(bytes.hex),
)
tallies = st.builds(LeaseTally, what=names, kind=names, outcome=names, count=st.integers(0, 2**53 - 1))


@given(orders)
def test_an_order_is_read_as_it_was_written(order: LeaseOrder) -> None:
    preimage = lease_preimage(order)
    assert read_lease(preimage) == order
    facts = read_preimage(LEASE.name, preimage)
    assert facts.digest == facts.artifact.digest == hashlib.sha256(preimage.signed).digest()


@given(orders, st.data())
def test_what_is_changed_is_another_order_or_none(order: LeaseOrder, data: st.DataObject) -> None:
    signed = bytearray(lease_preimage(order).signed)
    place = data.draw(st.integers(0, len(signed) - 1))
    signed[place] ^= data.draw(st.integers(1, 255))
    try:
        read = read_lease(Preimage(signed=bytes(signed)))
    except MalformedInputError:
        return
    assert read != order
    assert lease_preimage(read).signed == bytes(signed)


@given(st.binary(max_size=300))
def test_other_bytes_are_no_order(noise: bytes) -> None:
    with pytest.raises(MalformedInputError):
        read_lease(Preimage(signed=noise))


@pytest.mark.parametrize(
    "change",
    [
        {"device": ""},
        {"device": "../etc"},
        {"seconds": 0},
        {"seconds": 86_401},
        {"seconds": -1},
        {"seconds": 2**70},
        {"reason": "x" * 201},
        {"reason": "two\nlines"},
        {"tls_key": "AB" * 32},
        {"tls_key": "ab" * 31},
        {"sealed": "cd" * 47},
        {"sealed": "c" * 161},
        {"type": "other"},
        {"more": 1},
    ],
)
def test_a_field_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    document = json.loads(lease_preimage(ORDER).signed) | change
    signed = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(MalformedInputError, match=r"lease\.malformed"):
        read_lease(Preimage(signed=signed))


def test_another_spelling_and_a_detail_are_refused() -> None:
    signed = lease_preimage(ORDER).signed
    for other in (signed + b"\n", json.dumps(json.loads(signed)).encode(), b"[" * 100_000):
        with pytest.raises(MalformedInputError):
            read_lease(Preimage(signed=other))
    with pytest.raises(MalformedInputError):
        read_lease(Preimage(signed=signed, detail=b"x"))


def test_no_other_format_takes_an_order() -> None:
    """A permission for leases makes no signature, and the other way round (promise 3)."""
    assert LEASE.binding is Binding.OPAQUE
    for one in FORMATS:
        if one is not LEASE:
            with pytest.raises(MalformedInputError):
                one.parse_preimage(lease_preimage(ORDER))


@given(
    st.builds(
        LeaseReport,
        device=names,
        usb=names,
        held_ms=st.integers(0, 2**40),
        ended_by=names,
        reason=st.text(max_size=50),
        clean=st.booleans(),
        tallies=st.lists(tallies, max_size=5).map(tuple),
        unproven=st.lists(names, max_size=5).map(tuple),
        **{
            name: st.integers(0, 2**53 - 1)
            for name in LeaseReport.__struct_fields__
            if name
            in ("refused", "apdus", "urbs", "bytes_in", "bytes_out", "errors", "round_trip_us", "link_round_trip_us")
        },
    )
)
def test_a_report_is_read_as_it_was_written(report: LeaseReport) -> None:
    assert read_report(encode_report(report)) == report


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff", b" " * 20_000])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInputError, match=r"lease\.report"):
        read_report(data)


def test_a_report_counts_by_outcome() -> None:
    tally = [LeaseTally(what="pin-verification", kind="", outcome=one, count=n) for n, one in enumerate("abc", 1)]
    report = msgspec.structs.replace(_REPORT, tallies=tuple(tally))
    assert (report.total("pin-verification"), report.total("pin-verification", "b", "c")) == (6, 5)
    assert report.total("key-generation") == 0


_REPORT = LeaseReport(
    device="d",
    usb="1:2",
    held_ms=1,
    ended_by="holder",
    reason="",
    clean=True,
    tallies=(),
    unproven=(),
    refused=0,
    apdus=0,
    urbs=0,
    bytes_in=0,
    bytes_out=0,
    errors=0,
    round_trip_us=0,
    link_round_trip_us=0,
)
