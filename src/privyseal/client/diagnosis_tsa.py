# SPDX-License-Identifier: Apache-2.0
"""Whether a TSA answers (RFC 3161): one real question about a random digest."""

import secrets
from typing import Final

from privyseal.client.tsa_http import HttpTsa
from privyseal.errors import VerificationError
from privyseal.pki.tsp import TimeStampReq, encode_request, parse_response, parse_token
from privyseal.ports.diagnosis import Row, look, passed
from privyseal.wire.tsa import check_tsa_url

__all__ = ["check_tsa"]

_SECONDS: Final = 10.0
_DIGEST_BYTES: Final = 32
_NONCE_BITS: Final = 63


def check_tsa(url: str) -> Row:
    """Ask for a timestamp token over random bytes; whether its signature is trusted is judged when signing."""
    return look(f"TSA {url}", lambda: _check(url))


def _check(url: str) -> Row:
    check_tsa_url(url)
    question = TimeStampReq(
        digest_algorithm="sha256", imprint=secrets.token_bytes(_DIGEST_BYTES), nonce=secrets.randbits(_NONCE_BITS)
    )
    told = parse_token(parse_response(HttpTsa(url=url).ask(encode_request(question), _SECONDS)))
    if (told.imprint, told.nonce) != (question.imprint, question.nonce):
        raise VerificationError(
            "tsp.nonce",
            f"the TSA at {url} answered another question than the one that was asked",
            hint="something between here and the TSA gives old answers; try another TSA",
        )
    return passed(f"TSA {url}", f"gave a timestamp token with genTime {told.gen_time:%Y-%m-%d %H:%M:%S} UTC")
