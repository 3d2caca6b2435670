# SPDX-License-Identifier: Apache-2.0
"""What a TSA's URL may be and what its HTTP answers mean (RFC 3161 §3.4), for client and hub alike."""

import datetime as dt
import email.utils
import urllib.parse
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from privyseal.errors import ConfigError, MalformedInputError, UnavailableError, UnsupportedInputError

__all__ = ["MAX_TSA_ANSWER_BYTES", "TSA_HEADERS", "BusyError", "TsaAnswer", "check_tsa_url", "judge_tsa_answer"]

#: A token with a long chain has some 20 KiB.
MAX_TSA_ANSWER_BYTES: Final = 1024 * 1024
TSA_HEADERS: Final = {
    "Content-Type": "application/timestamp-query",
    "Accept": "application/timestamp-reply",
    "User-Agent": "privyseal",
}
_MAX_RETRY_AFTER_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TsaAnswer:
    """An HTTP answer; `body` is read for status 200 alone."""

    status: int
    content_type: str
    location: str
    retry_after: str
    body: bytes


class BusyError(UnavailableError):
    """The peer asks for patience.

    Attributes:
        retry_after_seconds: How long, as it said; None if it did not say.
    """

    def __init__(self, code: str, message: str, *, retry_after_seconds: float | None) -> None:
        super().__init__(code, message)
        self.retry_after_seconds = retry_after_seconds


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
        seconds = _retry_after(answer.retry_after, now)
        patience = "" if seconds is None else f" and asks to wait {seconds:.0f} s"
        raise BusyError("tsa.busy", f"it answers with HTTP {answer.status}{patience}", retry_after_seconds=seconds)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise UnavailableError("tsa.unavailable", f"it answers with HTTP {answer.status}")
    if answer.status != HTTPStatus.OK:
        raise UnsupportedInputError("tsa.http_status", f"it answers with HTTP {answer.status}; is this a TSA's URL?")
    if answer.content_type.lower().startswith("text/") or answer.body.lstrip()[:1] == b"<":
        raise MalformedInputError("tsa.not_a_timestamp", "it answers with a page of text: a proxy may stand in between")
    return answer.body


def _retry_after(text: str, now: dt.datetime) -> float | None:
    """Seconds of a Retry-After field: a number or an HTTP date (RFC 9110 §10.2.3)."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), _MAX_RETRY_AFTER_SECONDS)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    seconds = (moment - now).total_seconds()
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_SECONDS)
