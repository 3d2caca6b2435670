# SPDX-License-Identifier: Apache-2.0
"""The hub's way to TSAs: the faults that HTTP can have, each named, in bounded time and size."""

import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from privyseal.errors import PrivysealError
from privyseal.hub.tsa_http import TsaClient
from privyseal.pki import tsp
from tsa_samples import Behaviour, Reply, busy, hang, html, oversize, redirect, running_tsa, truncated

REQUEST = tsp.encode_request(tsp.TimeStampReq(digest_algorithm="sha256", imprint=b"i" * 32, nonce=7))


@pytest.fixture
async def client() -> AsyncIterator[TsaClient]:
    client = TsaClient()
    yield client
    await client.close()


async def error_of(client: TsaClient, url: str) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        await client.ask(url, REQUEST)
    return caught.value


FAULTS: dict[str, tuple[Behaviour, str, bool]] = {
    "web page": (html, "tsa.not_a_timestamp", False),
    "truncated": (truncated, "tsa.truncated", False),
    "too large": (oversize, "tsa.too_large", False),
    "busy": (busy("5"), "tsa.busy", True),
    "failed": (lambda _: Reply(status=500), "tsa.unavailable", True),
    "not found": (lambda _: Reply(status=404), "tsa.http_status", False),
    "redirect": (redirect("http://127.0.0.1:1/"), "tsa.http_status", False),
    "endless header": (lambda _: Reply(headers=(("X", "y" * 100_000),)), "tsa.not_http", False),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_fault_is_named(client: TsaClient, fault: str) -> None:
    behaviour, code, later = FAULTS[fault]
    with running_tsa(behaviour) as host:
        error = await error_of(client, host.url)

    assert (error.code, error.retryable) == (code, later), error
    assert len(host.requests) == 1


async def test_an_honest_answer_comes_through_as_it_is(client: TsaClient) -> None:
    with running_tsa() as host:
        answers = [await client.ask(host.url, REQUEST) for _ in range(2)]

    assert all(tsp.parse_token(tsp.parse_response(answer)).nonce == 7 for answer in answers)


async def test_a_hanging_tsa_is_given_up() -> None:
    client = TsaClient(exchange_seconds=0.5)
    try:
        with running_tsa(hang) as host:
            assert (await error_of(client, host.url)).code == "tsa.timeout"
    finally:
        await client.close()


async def test_nobody_there(client: TsaClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert (await error_of(client, f"http://127.0.0.1:{port}/")).code == "tsa.unreachable"


async def test_https_is_verified(client: TsaClient) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(stranger)
    with running_tsa(tls=stranger) as host:
        assert (await error_of(client, host.url)).code == "tsa.tls"
