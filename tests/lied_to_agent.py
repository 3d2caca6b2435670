# SPDX-License-Identifier: Apache-2.0
"""A real executor with a real journal and a real software token, and what tests ask of it."""

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from lying_hub import NOW_MS, PROFILE, TOKEN, Ask, Key, LyingHub, Trust
from privyseal.agent.check import KeyProfile
from privyseal.agent.executor import Executor, Shown
from privyseal.agent.served import ServedKey
from privyseal.agent.turns import Turns
from privyseal.formats.model import Artifact, Binding, Format, Preimage, PreimageFacts
from privyseal.formats.registry import FORMATS, format_named
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.ports.clock import Monotonic
from privyseal.ports.token import KeyCounter, ReaderUse, Token, TokenInfo, TokenKey
from privyseal.storage.connection import Connect, connect
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.entry import Intent, parse_entry
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.software import create_software_token, generate_key
from privyseal.wire.jobs import Answers, ItemDone, ItemRefused, Job, JobItem, JobPart, LeaseRenewed
from privyseal.wire.link import AgentMessage
from privyseal.wire.link import Held as HeldMessage

__all__ = [
    "AGENT_KEY",
    "KEY_ID",
    "OTHER_PROFILE",
    "Bench",
    "CountingToken",
    "Served",
    "make_format",
    "make_software_token",
    "open_bench",
]

#: A second key profile of the same token.
OTHER_PROFILE = "nightly"
#: Raw request key of the agent; only its hash is ever used.
AGENT_KEY = hashlib.sha256(b"the agent's request key").digest()
KEY_ID = b"\x01"
#: Nothing here takes this long unless it never comes.
PATIENCE_SECONDS = 20.0
_PIN = b"lab-pin-1"


def make_software_token(directory: Path) -> tuple[TokenConfig, bytes]:
    """A software token with one P-256 key, and the key's SubjectPublicKeyInfo."""
    path, pin_file = directory / "token", directory / "pin"
    create_software_token(path, pin=_PIN, label="lab")
    spki = generate_key(path, pin=_PIN, kind="p256", key_id=KEY_ID, label="release")
    pin_file.touch(mode=0o600)
    pin_file.write_bytes(_PIN)
    journal = str(directory / "pin-journal")
    config = TokenConfig(name="lab", kind="software", path=str(path), pin_file=str(pin_file), journal=journal)
    return config, spki


class CountingToken:
    """A token that remembers what it was asked to sign."""

    def __init__(self, token: Token) -> None:
        self._token = token
        self.signed: list[bytes] = []

    async def info(self) -> TokenInfo:
        return await self._token.info()

    async def keys(self) -> tuple[TokenKey, ...]:
        return await self._token.keys()

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        self.signed.append(digest)
        return await self._token.sign(key_id=key_id, mechanism=mechanism, digest=digest)

    async def counters(self) -> tuple[KeyCounter, ...]:
        return await self._token.counters()

    async def reader_use(self) -> ReaderUse | None:
        return await self._token.reader_use()

    async def probe(self, count: int) -> tuple[int, ...] | None:
        return await self._token.probe(count)

    async def close(self) -> None:
        await self._token.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The token that the tests of a module share, and its key."""

    token: Token
    spki: bytes

    @property
    def key(self) -> Key:
        return Key(spki=self.spki, agent=AGENT_KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A job that the agent is at."""

    said: asyncio.Queue[Answers]
    rest: asyncio.Task[None] | None

    async def hear(self) -> dict[tuple[str, int], str]:
        """What the agent says next: for each item the code of its refusal, or nothing where it was signed."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return codes((await self.said.get()).items)

    async def end(self) -> dict[tuple[str, int], str]:
        """What the agent says until the job has ended."""
        if self.rest is not None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.rest
        heard: dict[tuple[str, int], str] = {}
        while not self.said.empty():
            heard |= codes(self.said.get_nowait().items)
        return heard


def codes(said: Iterable[ItemDone | ItemRefused]) -> dict[tuple[str, int], str]:
    """What became of each item: the code of its refusal, or nothing where it was signed."""
    told: dict[tuple[str, int], str] = {}
    for one in said:
        assert (one.request, one.item) not in told, "answered twice"
        told[one.request, one.item] = "" if isinstance(one, ItemDone) else one.code
    return told


@dataclass(kw_only=True)
class Over:
    """Answers over one link; those over the same one are alike."""

    link: str
    said: asyncio.Queue[Answers] = field(compare=False, default_factory=asyncio.Queue)
    told: list[int] = field(compare=False, default_factory=list)

    async def __call__(self, message: AgentMessage) -> None:
        if isinstance(message, HeldMessage):
            self.told.append(message.size)
            return
        assert isinstance(message, Answers), message
        self.said.put_nowait(message)


@dataclass(kw_only=True)
class Bench:
    """An agent, the hub that lies to it, and an enrolled client's first request."""

    trust: Trust
    hub: LyingHub
    journal: SqliteJournal
    executor: Executor
    token: CountingToken
    profile: KeyProfile
    formats: tuple[Format, ...]
    now_ms: list[int] = field(default_factory=lambda: [NOW_MS])
    now_s: list[float] = field(default_factory=lambda: [0.0])
    told: list[int] = field(default_factory=list)

    async def take(self, job: Job, shown: Shown | None = None) -> tuple[ItemDone | ItemRefused, ...]:
        """Give the agent a job, and answer with what it said of its items."""
        over = Over(link="a link", told=self.told)
        rest = await self.executor.accept(job, over, shown)
        if rest is not None:
            await rest
        said: list[ItemDone | ItemRefused] = []
        while not over.said.empty():
            said.extend(over.said.get_nowait().items)
        return tuple(said)

    async def renew(self, *, fence: int, lease_ms: int, token: str = TOKEN, over: str = "a link") -> None:
        """A hub says that it has the lease of a token."""
        await self.executor.renew(LeaseRenewed(token=token, fence=fence, lease_ms=lease_ms), Over(link=over))

    async def begin(self, job: Job, *, over: str = "a link") -> "Begun":
        """Give the agent a job; the token is at work on it when this returns, or waits for its turn."""
        said: asyncio.Queue[Answers] = asyncio.Queue()
        rest = await self.executor.accept(job, Over(link=over, said=said))
        return Begun(said=said, rest=None if rest is None else asyncio.create_task(rest))

    async def signs(self, job: Job) -> tuple[bytes, ...]:
        """The agent signs every item, and each signature verifies."""
        said = await self.take(job)
        done = [message for message in said if isinstance(message, ItemDone)]
        items = items_of(job)
        assert len(done) == len(said) == len(items), said
        for message, item in zip(done, items, strict=True):
            intent = parse_entry(item.entry)
            assert isinstance(intent, Intent)
            digest = bytes.fromhex(intent.digest)
            verify_digest(self.profile.spki, Mechanism.ECDSA_SHA256, digest, message.signature)
            assert (message.item, message.fence) == (item.item, job.fence)
        return tuple(message.signature for message in done)

    async def refuses(self, job: Job, code: str, words: str = "", shown: Shown | None = None) -> None:
        """The agent refuses every item with this code, uses no token and journals at most a checkpoint that it saw."""
        before = (len(self.token.signed), await self.journal.entries(0, 1000))
        said = await self.take(job, shown)
        for message, item in zip(said, items_of(job), strict=True):
            assert isinstance(message, ItemRefused), message
            assert (message.code, message.unknown) == (code, False), message
            assert words in message.message
            assert (message.item, message.fence) == (item.item, job.fence)
        assert (len(self.token.signed), await self.journal.entries(0, 1000)) == before
        held, state = self.executor.held, await self.journal.state()
        assert (state.size, state.root) == (held.size, held.root)

    async def still_signs(self, ask: Ask, *, fence: int = 1) -> None:
        """After a lie the agent serves an honest job on the same log."""
        await self.signs(self.hub.job(ask, fence=fence))


def items_of(job: Job) -> tuple[JobItem, ...]:
    """The items of all its parts."""
    return tuple(item for part in job.parts for item in part.items)


def with_part(job: Job, **changes: Any) -> Job:
    """The job with its first part changed."""
    return replace(job, parts=(replace(job.parts[0], **changes), *job.parts[1:]))


def with_item(job: Job, **changes: Any) -> Job:
    """The job with the first item of its first part changed."""
    first: JobPart = job.parts[0]
    return with_part(job, items=(replace(first.items[0], **changes), *first.items[1:]))


def with_member(job: Job, **changes: Any) -> Job:
    """The job with the client's membership changed in its first part."""
    return with_part(job, membership=replace(job.parts[0].membership, **changes))


def resent(job: Job, bench: Bench) -> Job:
    """The newest job once more: now the agent has seen its checkpoint."""
    return replace(job, old_size=bench.hub.log.size, consistency=())


async def open_bench(
    directory: Path,
    served: Served,
    trust: Trust,
    *,
    level: str = "traced",
    opaque: tuple[str, ...] = (),
    formats: tuple[Format, ...] = FORMATS,
    hub: LyingHub | None = None,
    own_witness: bytes | None = None,
    connect: Connect = connect,
    monotonic: Monotonic | None = None,
    workers: int = 1,
    several_hubs: bool = False,
) -> Bench:
    """An agent over the journal in `directory`: opened a second time it is the same agent after a restart.

    With a public key of its own as a witness it wants witnesses before use.
    """
    journal = await SqliteJournal.open(directory / "journal.db", origin=trust.bundle.origin, connect=connect)
    now_ms, now_s = [NOW_MS], [0.0]
    executor = Executor(
        bundle=trust.bundle,
        request_key=AGENT_KEY,
        journal=journal,
        clock=lambda: now_ms[0],
        monotonic=monotonic or (lambda: now_s[0]),
        own_witness=own_witness or b"",
        formats=formats,
        several_hubs=several_hubs,
    )
    profile = KeyProfile(
        name=PROFILE,
        token=TOKEN,
        spki=served.spki,
        level=level,
        opaque=opaque,
        not_before_ms=0,
        not_after_ms=NOW_MS + 10**10,
        witness="off" if own_witness is None else "before-use",
    )
    token = CountingToken(served.token)
    key = ServedKey(profile=profile, token=token, key_id=KEY_ID, turns=Turns(workers))
    executor.serve((key, dataclasses.replace(key, profile=dataclasses.replace(profile, name=OTHER_PROFILE))))
    held = await executor.load()
    hub = hub or LyingHub(trust, served.key, formats=formats)
    hub.held_size = held.size
    return Bench(
        trust=trust,
        hub=hub,
        journal=journal,
        executor=executor,
        token=token,
        profile=profile,
        formats=formats,
        now_ms=now_ms,
        now_s=now_s,
    )


def make_format(name: str, binding: Binding, *, reads: Callable[[Preimage], PreimageFacts] | None = None) -> Format:
    """A format beside those of the project; without `reads`, one whose preimage is a bare SHA-256 digest."""
    pe = format_named("authenticode-pe")

    def bare(preimage: Preimage) -> PreimageFacts:
        digest = hashlib.sha256(preimage.signed).digest()
        artifact = Artifact(algorithm="sha256", digest=digest)
        return PreimageFacts(artifact=artifact, digest_algorithm="sha256", digest=digest)

    return Format(
        name=name,
        title=name,
        binding=binding,
        certificate_in_preimage=False,
        detect=lambda _head, _name: False,
        scan=pe.scan,
        preimage=pe.preimage,
        parse_preimage=reads or bare,
        embed=pe.embed,
        verify=pe.verify,
    )
