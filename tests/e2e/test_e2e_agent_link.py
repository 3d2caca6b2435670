# SPDX-License-Identifier: Apache-2.0
"""The agents' end of the hub as somebody finds it who has an agent's certificate and bad manners."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

from api_client import api_of, ask
from installation import Site
from privyseal.client.transport import web_context
from privyseal.tlog.tree import EMPTY_ROOT
from privyseal.wire.jobs import Answers, ItemDone, OutcomeReply
from privyseal.wire.link import (
    LINK_VERSION,
    Announce,
    Hello,
    HubMessage,
    ProfileAnnouncement,
    Refused,
    Welcome,
    decode_hub,
    encode,
)
from programs import privyseal, succeeded

OF_ANOTHER_VERSION = Hello(version=99, checkpoint_size=0, checkpoint_root=EMPTY_ROOT, bundle=b"", witness="")


def hello(site: Site) -> bytes:
    """What an agent says that has seen nothing of the log yet."""
    return encode(replace(OF_ANOTHER_VERSION, version=LINK_VERSION, bundle=site.client().load_bundle().sha256))


@pytest.fixture(scope="module")
def rogue(site: Site) -> Path:
    """The identity of a second agent, which serves nothing."""
    directory = site.directory / "rogue"
    succeeded(privyseal("agent", "join", "--dir", directory, told=site.invite("agent", "rogue")))
    return directory


def tls(site: Site, identity: Path) -> ssl.SSLContext:
    context = web_context(site.client().load_bundle().statement.ca)
    context.load_cert_chain(identity / "tls.pem", identity / "tls.key")
    return context


@pytest.fixture
async def link(site: Site, rogue: Path) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{site.client().hub_urls[0]}/v1/agents/link", ssl=tls(site, rogue)) as socket,
    ):
        yield socket


async def answer(link: aiohttp.ClientWebSocketResponse) -> HubMessage:
    return decode_hub(await link.receive_bytes(timeout=10))


async def refusal(link: aiohttp.ClientWebSocketResponse) -> str:
    """The code of the refusal, after which the hub hangs up."""
    said = await answer(link)
    assert isinstance(said, Refused)
    assert (await link.receive(timeout=10)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
    return said.code


def still_signs(site: Site) -> None:
    reply = api_of(site.client())("POST", "/v1/signatures?wait=30", ask(site.client(), "release").body)
    assert [item["state"] for item in reply.document["items"]] == ["signed"]


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (b"", "link.malformed"),
        (b"garbage", "link.malformed"),
        (b"\xc1" * 100, "link.malformed"),
        (b"\x91" * 100_000, "link.malformed"),
        (b"\xdf\xff\xff\xff\xff", "link.malformed"),
        (encode(Welcome(name="x", recorded=0)), "link.malformed"),
        (encode(Announce(profiles=())), "link.version"),
        (encode(OF_ANOTHER_VERSION), "link.version"),
    ],
    ids=["empty", "words", "reserved", "deep", "enormous-map", "hubs-own", "no-hello", "version"],
)
async def test_a_first_message_that_is_none(
    site: Site, link: aiohttp.ClientWebSocketResponse, first: bytes, code: str
) -> None:
    await link.send_bytes(first)

    assert await refusal(link) == code
    still_signs(site)


async def test_words_instead_of_messages(site: Site, link: aiohttp.ClientWebSocketResponse) -> None:
    await link.send_str("hello")

    assert await refusal(link) == "link.malformed"
    still_signs(site)


async def test_a_second_hello(site: Site, link: aiohttp.ClientWebSocketResponse) -> None:
    await link.send_bytes(hello(site))
    assert isinstance(await answer(link), Welcome)
    await link.send_bytes(hello(site))

    assert await refusal(link) == "link.malformed"
    still_signs(site)


async def test_a_profile_of_another_agent_is_not_taken_over(site: Site, link: aiohttp.ClientWebSocketResponse) -> None:
    """Whoever controls one agent must not be able to draw the jobs of another one's key."""
    stolen = ProfileAnnouncement(
        name="release", token="lab", chain=(), level="traced", opaque=(), token_label="", token_serial="", hardware=True
    )
    await link.send_bytes(hello(site))
    assert isinstance(await answer(link), Welcome)
    await link.send_bytes(encode(Announce(profiles=(stolen,))))

    assert await refusal(link) == "profile.taken"
    still_signs(site)


async def test_a_profile_whose_chain_is_no_certificate(site: Site, link: aiohttp.ClientWebSocketResponse) -> None:
    broken = ProfileAnnouncement(
        name="broken",
        token="lab",
        chain=(b"no certificate",),
        level="traced",
        opaque=(),
        token_label="",
        token_serial="",
        hardware=True,
    )
    await link.send_bytes(hello(site))
    assert isinstance(await answer(link), Welcome)
    await link.send_bytes(encode(Announce(profiles=(broken,))))

    assert (await refusal(link)).startswith(("certificate.", "x509.", "der."))
    assert "broken" not in [one["name"] for one in succeeded(site.run("status", "--json")).document["profiles"]]
    still_signs(site)


async def test_a_link_that_another_one_replaces_is_hung_up(
    site: Site, rogue: Path, link: aiohttp.ClientWebSocketResponse
) -> None:
    """What a dead process sent may be read after its successor has linked, which must hear that it is not linked."""
    await link.send_bytes(hello(site))
    assert isinstance(await answer(link), Welcome)
    url = f"{site.client().hub_urls[0]}/v1/agents/link"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, ssl=tls(site, rogue)) as other:
        await other.send_bytes(hello(site))
        assert isinstance(await answer(other), Welcome)

        assert (await link.receive(timeout=10)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        await other.send_bytes(encode(Announce(profiles=())))  # and this one stands
        await other.ping()

    still_signs(site)


async def test_answers_that_nobody_asked_for(site: Site, link: aiohttp.ClientWebSocketResponse) -> None:
    """They are no signatures: nothing of them reaches the log."""
    await link.send_bytes(hello(site))
    assert isinstance(await answer(link), Welcome)
    before = succeeded(site.run("log", "verify", "--json")).document["signatures"]
    for fence in (-1, 0, 1, 2**40):
        done = ItemDone(request="0" * 64, item=0, fence=fence, signature=b"x" * 384)
        await link.send_bytes(encode(Answers(items=(done,))))
        await link.send_bytes(encode(OutcomeReply(request="0" * 64, item=0, fence=fence, state="done", signature=b"x")))

    still_signs(site)
    assert succeeded(site.run("log", "verify", "--json")).document["signatures"] == before + 1


async def test_a_client_certificate_opens_no_link(site: Site) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(
                f"{site.client().hub_urls[0]}/v1/agents/link", ssl=tls(site, site.client().identity.directory)
            )

    assert caught.value.status == 401


def test_a_revoked_agent_is_not_let_in_again(site: Site, rogue: Path) -> None:
    succeeded(site.administer("hub", "revoke", "agent", "rogue"))

    assert api_of(site.client(), rogue)("GET", "/v1/agents/link").problem == (401, "identity.revoked")
    assert api_of(site.client(), rogue)("GET", "/v1/status").problem == (401, "identity.revoked")
    assert "rogue" not in [one["name"] for one in succeeded(site.run("status", "--json")).document["agents"]]
