# SPDX-License-Identifier: Apache-2.0
"""What a TSA's URL may be and what its HTTP answers mean (RFC 3161 §3.4), for client and hub alike."""

import datetime as dt
import urllib.parse
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from privyseal.errors import ConfigError, MalformedInputError, UnavailableError, UnsupportedInputError
from privyseal.wire.retry_after import parse_retry_after

__all__ = ["MAX_TSA_ANSWER_BYTES", "TSA_HEADERS", "BusyError", "TsaAnswer", "check_tsa_url", "judge_tsa_answer"]

#: A token with a long chain has some 20 KiB.
MAX_TSA_ANSWER_BYTES: Final = 1024 * 1024
TSA_HEADERS: Final = {
    "Content-Type": "application/timestamp-query",
    "Accept": "application/timestamp-reply",
    "User-Agent": "privyseal",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TsaAnswer:
    """An HTTP answer; `body` is read for status 200 alone."""

    status: int
    content_type: str
    location: str
    retry_after: str
    body: bytes


class BusyError(UnavailableError):
    """The peer asks for patience."""


def check_tsa_url(url: str) -> None:
    """A TSA's URL is http or https, and holds no credentials: it stands in messages.

    Raises:
        ConfigError: `timestamp.url`.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = (parts.hostname or "").encode("idna")  # refuses names that no resolver takes
        sound = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(
            "timestamp.url",
            "a TSA is named by an http:// or https:// URL without credentials, for example http://tsa.example.com",
        )


def judge_tsa_answer(answer: TsaAnswer, now: dt.datetime) -> bytes:
    """What may be a TimeStampResp.

    Args:
        answer: What came back.
        now: For a Retry-After that names a date.

    Raises:
        UnavailableError: `tsa.unavailable`; as `BusyError`: `tsa.busy`.
        UnsupportedInputError: `tsa.http_status`.
        MalformedInputError: `tsa.not_a_timestamp`.
    """
    if answer.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        seconds = parse_retry_after(answer.retry_after, now)
        patience = "" if seconds is None else f" and asks to wait {seconds:.0f} s"
        raise BusyError("tsa.busy", f"it answers with HTTP {answer.status}{patience}", retry_after_seconds=seconds)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UnavailableError("tsa.unavailable", f"it answers with HTTP {answer.status}")
    if answer.status != HTTPStatus.OK:
        raise UnsupportedInputError("tsa.http_status", f"it answers with HTTP {answer.status}; is this a TSA's URL?")
    if answer.content_type.lower().startswith("text/") or answer.body.lstrip()[:1] == b"<":
        raise MalformedInputError("tsa.not_a_timestamp", "it answers with a page of text: a proxy may stand in between")
    return answer.body
