# SPDX-License-Identifier: Apache-2.0
"""Join codes: what was pasted is what was given out, or nothing."""

import base64
import hashlib
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import ConfigError
from privyseal.identity.joining import ROLES, JoinCodeText, format_join_code, parse_join_code, proof_message

CODE = JoinCodeText(
    role="client",
    web_url="https://hub.example:8444",
    bundle_sha256=hashlib.sha256(b"bundle").digest(),
    secret=hashlib.md5(b"secret").digest(),
)
TEXT = format_join_code(CODE)
ALPHABET = string.ascii_letters + string.digits + "-_"

codes = st.builds(
    JoinCodeText,
    role=st.sampled_from(ROLES),
    web_url=st.text(ALPHABET + ".:/[]", max_size=60).map("https://".__add__),
    bundle_sha256=st.binary(min_size=32, max_size=32),
    secret=st.binary(min_size=16, max_size=16),
)


def refused(text: str, role: str = "client", code: str = "join.code") -> None:
    with pytest.raises(ConfigError) as caught:
        parse_join_code(text, role)
    assert caught.value.code == code
    assert len(text) < 20 or text[8:] not in str(caught.value), "a join code is a secret"


@given(codes)
def test_what_was_written_is_read(code: JoinCodeText) -> None:
    assert parse_join_code(format_join_code(code), code.role) == code


@pytest.mark.parametrize("around", ["  {}", "{}\n", "\t{}\r\n"])
def test_space_around_it_is_forgiven(around: str) -> None:
    assert parse_join_code(around.format(TEXT), "client") == CODE


def test_each_lost_character_is_noticed() -> None:
    for place in range(len(TEXT)):
        refused(TEXT[:place] + TEXT[place + 1 :])


def test_each_doubled_character_is_noticed() -> None:
    for place in range(len(TEXT)):
        refused(TEXT[:place] + TEXT[place] + TEXT[place:])


def test_each_changed_character_is_noticed() -> None:
    for place, character in enumerate(TEXT):
        for other in ALPHABET.replace(character, ""):
            refused(TEXT[:place] + other + TEXT[place + 1 :])


def test_the_last_character_has_one_form_only() -> None:
    for length in range(20, 24):  # each remainder of base64
        whole = format_join_code(replace(CODE, web_url="https://" + "h" * length))
        for other in ALPHABET:
            if other != whole[-1]:
                refused(whole[:-1] + other)


@pytest.mark.parametrize("length", range(0, len(TEXT), 7))
def test_a_code_that_was_cut_is_noticed(length: int) -> None:
    refused(TEXT[:length])


@pytest.mark.parametrize(
    "text",
    ["", "pvjoin1-", TEXT.removeprefix("pvjoin1-"), TEXT.upper(), "pvjoin2-" + TEXT[8:], TEXT + " " + TEXT, "ä" * 80],
    ids=["empty", "prefix", "no-prefix", "upper", "version", "twice", "not-ascii"],
)
def test_what_is_no_join_code(text: str) -> None:
    refused(text)


@given(st.text(max_size=100))
def test_noise_is_refused(noise: str) -> None:
    for text in (noise, "pvjoin1-" + noise):
        with pytest.raises(ConfigError):
            parse_join_code(text, "client")


def checked(body: bytes) -> str:
    """The body with its check, as a code."""
    check = hashlib.sha256(body).digest()[:2]
    return "pvjoin1-" + base64.urlsafe_b64encode(body + check).decode().rstrip("=")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\x02" + bytes(48) + b"https://hub.example",
        b"\xff" + bytes(48) + b"https://hub.example",
        b"\x00" + bytes(48) + b"http://hub.example",
        b"\x00" + bytes(48) + "https://hüb.example".encode(),
        b"\x00" + bytes(48),
    ],
    ids=["empty", "role-only", "role-2", "role-255", "http", "not-ascii", "no-url"],
)
def test_a_sound_check_does_not_make_a_code(body: bytes) -> None:
    refused(checked(body))


def test_a_code_for_another_role_is_refused_with_the_right_command() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_join_code(TEXT, "agent")

    assert caught.value.code == "join.role"
    assert "privyseal client join" in caught.value.hint


def test_the_proof_binds_secret_and_certificate_request() -> None:
    messages = {proof_message(secret, csr) for secret in (b"a", b"ab") for csr in (b"c", b"bc")}

    assert len(messages) == 4
    assert {len(message) for message in messages} == {len(b"privyseal join v1\n") + 64}
