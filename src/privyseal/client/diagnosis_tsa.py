# SPDX-License-Identifier: Apache-2.0
"""Whether a TSA answers (RFC 3161 over HTTP, §3.4): one real question about a random digest."""

import secrets
from typing import Final

import urllib3
from urllib3.exceptions import HTTPError

from privyseal.errors import ConfigError, UnavailableError, VerificationError
from privyseal.pki.tsp import TimeStampReq, encode_request, parse_response, parse_token
from privyseal.ports.diagnosis import Row, look, passed

__all__ = ["check_tsa"]

_SECONDS: Final = 10.0
_MAX_RESPONSE_BYTES: Final = 1024 * 1024
_DIGEST_BYTES: Final = 32
_NONCE_BITS: Final = 63


def check_tsa(url: str) -> Row:
    """Ask for a timestamp token over random bytes; whether its signature is trusted is judged when signing."""
    return look(f"TSA {url}", lambda: _check(url))


def _check(url: str) -> Row:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            "config.malformed", f"{url!r} is no address of a TSA", hint="it begins with http:// or https://"
        )
    question = TimeStampReq(
        digest_algorithm="sha256", imprint=secrets.token_bytes(_DIGEST_BYTES), nonce=secrets.randbits(_NONCE_BITS)
    )
    told = parse_token(parse_response(_ask(url, encode_request(question))))
    if (told.imprint, told.nonce) != (question.imprint, question.nonce):
        raise VerificationError(
            "tsp.nonce",
            f"the TSA at {url} answered another question than the one that was asked",
            hint="something between here and the TSA gives old answers; try another TSA",
        )
    return passed(f"TSA {url}", f"gave a timestamp token with genTime {told.gen_time:%Y-%m-%d %H:%M:%S} UTC")


def _ask(url: str, question: bytes) -> bytes:
    hint = "can this machine reach it, perhaps through a proxy? Try another TSA"
    headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
    try:
        with urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(total=_SECONDS)) as pool:
            response = pool.request("POST", url, body=question, headers=headers, preload_content=False)
            data = response.read(_MAX_RESPONSE_BYTES)
            response.release_conn()
    except HTTPError as error:
        raise UnavailableError("tsa.unreachable", f"the TSA at {url} does not answer: {error}", hint=hint) from error
    if response.status != 200:
        raise UnavailableError("tsa.answer", f"the TSA at {url} answered with HTTP {response.status}", hint=hint)
    return data
