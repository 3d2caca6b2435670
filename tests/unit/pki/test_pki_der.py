# SPDX-License-Identifier: Apache-2.0
import pytest
from cryptography.hazmat import asn1
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import MalformedInputError
from privyseal.pki import der


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> bytes:
    """DER of random OCTET STRINGs, SEQUENCEs and sorted SETs."""
    kind = draw(st.sampled_from(["leaf", "sequence", "set"] if depth else ["leaf"]))
    if kind == "leaf":
        return der.encode_tlv(der.TAG_OCTET_STRING, draw(st.binary(max_size=200)))
    parts = draw(st.lists(trees(depth=depth - 1), max_size=4))
    if kind == "set":
        return der.encode_tlv(der.TAG_SET, b"".join(sorted(parts)))
    return der.encode_tlv(der.TAG_SEQUENCE, b"".join(parts))


@given(trees())
def test_der_is_its_own_normal_form(encoded: bytes) -> None:
    assert der.normalise(encoded, "it") == encoded


@given(trees())
def test_every_truncation_is_refused(encoded: bytes) -> None:
    for end in range(len(encoded)):
        with pytest.raises(MalformedInputError) as caught:
            der.read_single(encoded[:end], "it")
        assert caught.value.code == "der.malformed"


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_with_a_code(data: bytes) -> None:
    try:
        normal = der.normalise(data, "it")
    except MalformedInputError as error:
        refused = error.code
    else:
        assert der.normalise(normal, "it") == normal
        refused = "der.none"
    assert refused.startswith("der.")


@given(st.integers(min_value=0, max_value=70_000))
def test_lengths_round_trip(size: int) -> None:
    encoded = der.encode_tlv(der.TAG_OCTET_STRING, bytes(size))

    tlv = der.read_single(encoded, "it")

    assert (tlv.tag, len(tlv.content), tlv.der) == (der.TAG_OCTET_STRING, size, encoded)


@pytest.mark.parametrize(
    ("ber", "expected"),
    [
        ("30800403616263 0000", "30050403616263"),
        ("3082000504810361 6263", None),
        ("30820006 048103616263", "30050403616263"),
        ("2480 0401 61 0402 6263 0000", "0403616263"),
        ("2407 0401 61 0402 6263", "0403616263"),
        ("3106 020102 020101", "3106 020101 020102"),
        ("a006 020102 020101", "a006 020102 020101"),
    ],
)
def test_ber_becomes_der(ber: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(MalformedInputError):
            der.normalise(bytes.fromhex(ber), "it")
    else:
        assert der.normalise(bytes.fromhex(ber), "it") == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "der.malformed"),
        (b"\x30", "der.malformed"),
        (b"\x1f\x81\x01\x00", "der.malformed"),
        (b"\x04\x80\x00\x00", "der.malformed"),
        (b"\x30\x80", "der.malformed"),
        (b"\x30\xff" + b"\xff" * 127, "der.malformed"),
        (b"\x05\x00\x00", "der.trailing_bytes"),
        (b"\x30\x80" * 60, "der.too_deep"),
        (b"\x30" * (der.MAX_SIZE_BYTES + 1), "der.too_large"),
    ],
)
def test_bombs_and_broken_lengths_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        der.normalise(data, "the thing")

    assert caught.value.code == code
    assert "the thing" in caught.value.message


@pytest.mark.parametrize(
    "before",
    [
        b"",
        bytes.fromhex("3003 0484ffffff"),
        bytes.fromhex("3002 0485"),
        bytes.fromhex("1f8101 00"),
        bytes.fromhex("1f81818101 01 00"),
        bytes.fromhex("3080 0000"),
        bytes.fromhex("0484 0000 0001 00"),
    ],
)
def test_countless_values_are_refused_before_they_are_read(before: bytes) -> None:
    """A value that lies about its length hides none of those behind it."""
    bomb = der.encode_tlv(0x30, before + b"\x05\x00" * der.MAX_VALUES)

    for read in (der.normalise, lambda data, what: der.decode(asn1.TLV, data, what)):
        with pytest.raises(MalformedInputError) as caught:
            read(bomb, "the thing")
        assert caught.value.code == "der.too_many_values"


def test_a_large_value_is_no_bomb() -> None:
    large = der.encode_tlv(0x30, b"\x05\x00" * 1000 + der.encode_tlv(0x04, bytes(20 << 20)))

    assert der.normalise(large, "it") == large


def test_children_keep_their_bytes() -> None:
    outer = der.read_single(bytes.fromhex("3007 020105 0402 6162"), "it")

    assert [one.der.hex() for one in der.children(outer, "it")] == ["020105", "04026162"]


def test_surplus_is_named() -> None:
    with pytest.raises(MalformedInputError, match="followed by 3 bytes") as caught:
        der.read_single(b"\x05\x00abc", "it")

    assert caught.value.code == "der.trailing_bytes"
