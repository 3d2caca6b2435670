# SPDX-License-Identifier: Apache-2.0
"""One question to a witness over HTTP (C2SP tlog-witness): nothing it answers is believed unless it is signed."""

import ssl
import time
import urllib.parse
from dataclasses import dataclass
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError

from privyseal.errors import ConfigError, UnavailableError

__all__ = ["WitnessAnswer", "add_checkpoint", "check_witness_url"]

_CONNECT_SECONDS: Final = 10.0
_READ_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 60.0
_MAX_ANSWER_BYTES: Final = 256 * 1024
_PIECE_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessAnswer:
    """What came back.

    Attributes:
        content_type: Without parameters.
    """

    status: int
    content_type: str
    body: bytes

    @property
    def words(self) -> str:
        """The beginning of what a refusal says."""
        return self.body[:200].decode("utf-8", "replace").strip() or "no reason"


def check_witness_url(url: str) -> None:
    """A witness's submission prefix.

    Raises:
        ConfigError: `witness.url`.
    """
    try:
        place = urllib.parse.urlsplit(url)
        good = place.scheme in {"http", "https"} and bool(place.hostname) and not (place.query or place.fragment)
        good = good and place.username is None
        _ = place.port
    except ValueError:
        good = False
    if not good:
        shown = url.rpartition("@")[2][:200]  # before it may stand a password
        raise ConfigError("witness.url", f"{shown!r} is no witness's URL, for example https://witness.example/")


def add_checkpoint(url: str, body: str) -> WitnessAnswer:
    """Put a checkpoint before a witness.

    Raises:
        ConfigError: `witness.url`.
        UnavailableError: `witness.unreachable`, `witness.answer`.
    """
    check_witness_url(url)
    deadline = time.monotonic() + _ANSWER_SECONDS
    with urllib3.PoolManager(
        ssl_context=ssl.create_default_context(),
        retries=False,
        timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
    ) as pool:
        try:
            response = pool.request(
                "POST",
                url.rstrip("/") + "/add-checkpoint",
                body=body.encode(),
                headers={"Content-Type": "text/plain; charset=utf-8"},
                preload_content=False,
                redirect=False,
            )
            data = _read(response, url, deadline)
        except HTTPError as error:
            raise UnavailableError(
                "witness.unreachable",
                f"the witness at {url} does not answer: {error}",
                hint="is it running, and can this machine reach it?",
            ) from error
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return WitnessAnswer(status=response.status, content_type=kind, body=data)


def _read(response: urllib3.BaseHTTPResponse, url: str, deadline: float) -> bytes:
    """The body as it came: little that unpacks to much stays little."""
    body = bytearray()
    try:
        while piece := response.read1(_PIECE_BYTES, decode_content=False):
            body += piece
            if len(body) > _MAX_ANSWER_BYTES or time.monotonic() > deadline:
                raise UnavailableError("witness.answer", f"the answer of the witness at {url} does not end")
    finally:
        response.close()
    return bytes(body)
