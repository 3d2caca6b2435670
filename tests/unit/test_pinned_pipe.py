# SPDX-License-Identifier: Apache-2.0
"""A channel's two sides know each other's keys, and nobody else gets in, reads or changes anything."""

import asyncio
import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from channels import Lease
from memory_pipes import MemoryPipe, pipe_pair
from privyseal.errors import PrivysealError, VerificationError
from privyseal.identity.ca import issue_server, make_ca, new_tls_key
from privyseal.identity.channel import (
    ChannelKey,
    ChannelUse,
    agent_proof,
    client_context,
    new_channel_key,
    open_secret,
    seal_secret,
    spki_sha256,
)
from privyseal.identity.pinned_pipe import PinnedPipe, accept_pinned, dial_pinned

USE = ChannelUse(hub="hub.example/lab", agent="lab", device="token", idempotency_key="one", tls_key=b"k" * 32)


async def outcomes(lease: Lease, agent_side: Any, client_side: Any) -> tuple[object, object]:
    """What became of the handshake on both sides: a pipe or an error."""
    agent, client = pipe_pair()
    first, second = await asyncio.gather(
        accept_pinned(agent, agent_side), dial_pinned(client, client_side), return_exceptions=True
    )
    return first, second


async def test_what_is_said_inside_comes_out_at_the_other_side() -> None:
    agent, client = await Lease().pinned(*pipe_pair())

    await client.send(b"PIN in here" * 5000)
    got = b""
    while len(got) < 55_000:
        got += await agent.receive()
    assert got == b"PIN in here" * 5000

    await agent.send(b"answer")
    assert await client.receive() == b"answer"
    agent.close()
    assert await client.receive() == b""


async def test_nothing_of_it_can_be_read_on_the_way() -> None:
    agent, client = pipe_pair()
    seen: list[bytes] = []

    def look(piece: bytes) -> bytes:
        seen.append(piece)
        return piece

    client.out.change = look
    inner_agent, inner_client = await Lease().pinned(agent, client)
    await inner_client.send(b"PIN 481516")
    assert await inner_agent.receive() == b"PIN 481516"

    assert b"481516" not in b"".join(seen)


async def test_another_client_is_refused() -> None:
    lease, other = Lease(), Lease()

    first, second = await outcomes(lease, lease.of_agent, replace(lease, client_key=other.client_key).of_client)

    assert isinstance(first, VerificationError)
    assert first.code == "channel.client_key"
    assert isinstance(second, ConnectionError)


async def test_a_client_that_shows_the_right_certificate_and_has_not_its_key() -> None:
    """The certificate travels in clear: who has seen it cannot use it."""
    lease = Lease()
    thief = new_channel_key()
    agent, client = pipe_pair()
    accepting = asyncio.create_task(accept_pinned(agent, lease.of_agent))
    await client.send(b"privyseal-usb/1\n" + lease.client_key.certificate)
    inside = PinnedPipe(client, client_context(thief), server_side=False)
    await inside.shake_hands()  # TLS 1.3: the client is done before the server has judged it
    with pytest.raises(ConnectionError):
        await accepting
    with pytest.raises(ConnectionError):
        await inside.receive()


async def test_whoever_cannot_open_the_secret_is_not_the_agent() -> None:
    """A hub in the middle has its CA, certificates of it, and all that was said; not the secret."""
    lease = Lease()

    first, second = await outcomes(lease, replace(lease, secret=b"guess" * 6 + b"..").of_agent, lease.of_client)

    assert isinstance(first, ConnectionError)
    assert isinstance(second, VerificationError)
    assert second.code == "channel.agent_proof"


def hub_key() -> ChannelKey:
    """A key with a server certificate of the hub's own CA."""
    now = dt.datetime.now(dt.UTC)
    ca_key, key = new_tls_key(), new_tls_key()
    ca = make_ca("hub.example/lab", ca_key, now)
    certificate = issue_server(ca, ca_key, key.public_key(), ("localhost",), now).public_bytes(Encoding.DER)
    return ChannelKey(key=key, certificate=certificate, sha256=spki_sha256(certificate))


async def test_a_hub_between_them_with_certificates_of_its_own_ca() -> None:
    """It plays the agent to the client and the client to the agent, and passes the agent's proof on."""
    lease, middle = Lease(), hub_key()
    to_client, client = pipe_pair()
    agent, to_agent = pipe_pair()

    as_agent = replace(lease, agent_key=middle, secret=b"?" * 32).of_agent
    as_client = replace(lease, client_key=middle).of_client
    results = await asyncio.gather(
        accept_pinned(to_client, as_agent),
        dial_pinned(client, lease.of_client),
        accept_pinned(agent, lease.of_agent),
        dial_pinned(to_agent, as_client),
        return_exceptions=True,
    )

    errors = [error.code if isinstance(error, PrivysealError) else type(error) for error in results]
    assert errors[1] == "channel.agent_proof"
    assert errors[2] == "channel.client_key"


async def test_a_proof_is_for_one_request_and_both_keys() -> None:
    lease = Lease()

    for wrong in (replace(lease, request_id="00" * 32), replace(lease, secret=bytes(32))):
        _, second = await outcomes(lease, wrong.of_agent, lease.of_client)
        assert isinstance(second, VerificationError)


async def test_an_old_channel_sent_again_opens_nothing() -> None:
    lease = Lease()
    agent, client = pipe_pair()
    recorded: list[bytes] = []

    def record(piece: bytes) -> bytes:
        recorded.append(piece)
        return piece

    client.out.change = record
    inner_agent, inner_client = await lease.pinned(agent, client)
    await inner_client.send(b"VERIFY PIN")
    assert await inner_agent.receive() == b"VERIFY PIN"

    again, replayer = pipe_pair()
    accepting = asyncio.create_task(accept_pinned(again, lease.of_agent))
    for piece in recorded:
        await replayer.send(piece)
    replayer.close()
    with pytest.raises(ConnectionError):
        await accepting


@pytest.mark.parametrize(
    "change",
    [lambda p: p[:-1], lambda p: p[:-1] + bytes([p[-1] ^ 1]), lambda p: p + p],
    ids=["cut", "changed", "twice"],
)
async def test_what_was_changed_on_its_way_ends_the_pipe(change: Callable[[bytes], bytes]) -> None:
    agent, client = pipe_pair()
    inner_agent, inner_client = await Lease().pinned(agent, client)
    client.out.change = change

    for _ in range(3):
        await inner_client.send(b"VERIFY")

    async def read_on() -> None:
        while True:  # what came whole before is good, and a byte that is missing may by chance be the next one
            assert await inner_agent.receive() == b"VERIFY"

    with pytest.raises(ConnectionError, match="changed on its way"):
        await read_on()


@pytest.mark.parametrize("way", ["to-agent", "to-client"])
@pytest.mark.parametrize("number", range(4))
async def test_a_handshake_that_is_disturbed_is_an_error(way: str, number: int) -> None:
    agent, client = pipe_pair()
    lease, left, disturbed = Lease(), [number], []

    def disturb(piece: bytes) -> bytes:
        left[0] -= 1
        if left[0] != -1:
            return piece
        disturbed.append(piece)
        return piece[:-20] + bytes(20)

    (client if way == "to-agent" else agent).out.change = disturb
    results = await asyncio.gather(
        accept_pinned(agent, lease.of_agent, seconds=0.3),
        dial_pinned(client, lease.of_client, seconds=0.3),
        return_exceptions=True,
    )

    errors = [result for result in results if isinstance(result, OSError | PrivysealError)]
    assert bool(errors) is bool(disturbed)


@pytest.mark.parametrize(
    "opening",
    [b"x", b"GET / HTTP/1.1\r\n\r\n", b"privyseal-usb/1\n", b"privyseal-usb/1\n" + bytes(5000)],
    ids=["short", "http", "nothing", "long"],
)
async def test_whoever_does_not_begin_as_a_client_does(opening: bytes) -> None:
    agent, stranger = pipe_pair()
    await stranger.send(opening)

    with pytest.raises(VerificationError) as caught:
        await accept_pinned(agent, Lease().of_agent)
    assert caught.value.code == "channel.certificate"
    assert await stranger.receive() == b"", "and the pipe is closed"


@pytest.mark.parametrize("side", ["agent", "client"])
async def test_a_peer_that_says_nothing_is_waited_for_so_long(side: str) -> None:
    ours: MemoryPipe
    ours, _ = pipe_pair()
    lease = Lease()

    if side == "agent":
        shaking = accept_pinned(ours, lease.of_agent, wait_seconds=0.01)
    else:
        shaking = dial_pinned(ours, lease.of_client, seconds=0.01)
    with pytest.raises(TimeoutError):
        await shaking


def test_a_secret_opens_for_the_agent_and_for_its_use_alone() -> None:
    key, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    secret, sealed = seal_secret(key.public_key().public_bytes_raw(), USE)

    assert open_secret(key, sealed, USE) == secret
    assert seal_secret(key.public_key().public_bytes_raw(), USE)[0] != secret
    for elsewhere in (
        replace(USE, hub="hub.example/other"),
        replace(USE, agent="lab-2"),
        replace(USE, device="other"),
        replace(USE, idempotency_key="two"),
        replace(USE, tls_key=b"K" * 32),
    ):
        with pytest.raises(VerificationError, match="does not open"):
            open_secret(key, sealed, elsewhere)
    with pytest.raises(VerificationError):
        open_secret(other, sealed, USE)
    with pytest.raises(VerificationError):
        open_secret(key, sealed[:-1] + bytes([sealed[-1] ^ 1]), USE)


def test_a_channels_key_is_told_by_its_hash() -> None:
    key = new_channel_key()
    certificate = x509.load_der_x509_certificate(key.certificate)

    assert spki_sha256(key.certificate) == key.sha256
    assert certificate.public_key() == key.key.public_key()
    for wrong in (b"", b"\x30\x00", key.certificate[:-1]):
        with pytest.raises(VerificationError, match="no certificate"):
            spki_sha256(wrong)


def test_a_proof_says_all_that_it_is_about() -> None:
    def proof(secret: bytes = b"s", agent: bytes = b"a" * 32, client: bytes = b"c" * 32, request: str = "r") -> bytes:
        return agent_proof(secret, agent_key=agent, client_key=client, request_id=request)

    assert proof() == proof()
    others = {proof(b"S"), proof(agent=b"A" * 32), proof(client=b"C" * 32), proof(request="R"), proof()}
    assert len(others) == 5
