# SPDX-License-Identifier: Apache-2.0
"""Pruning a hub's log by policy (C2SP tlog-tiles, "Pruning"): which entries are old enough, and letting them go.

Bodies go, a prefix of whole bundles at a time; every hash stays, so that roots, proofs and receipts stay what they
were. Before that an `admin` entry says so. Enrolments, grants and keys keep their bodies: jobs are proven with them.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from privyseal.errors import MalformedInputError
from privyseal.hub.config import HubFiles, load_hub_config
from privyseal.hub.database import open_store
from privyseal.hub.entries import key_sha256
from privyseal.hub.idle_database import idle_database
from privyseal.identity.bundle import load_bundle
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.clock import Clock, system_clock
from privyseal.ports.store import ReadTx, Store, Tx
from privyseal.tlog.entry import Admin, Enrol, Entry, GrantEntry, Intent, KeyEntry, encode_entry, parse_entry
from privyseal.tlog.tile import TILE_WIDTH

__all__ = ["Pruned", "Retention", "prune_log"]

_YEAR_MS: Final = int(dt.timedelta(days=365.25).total_seconds() * 1000)
_KEPT: Final = (Enrol, GrantEntry, KeyEntry, Admin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """For how long entries are kept.

    Attributes:
        years: After the key's certificate has expired, and for what belongs to no key after it was written.
        certificates: DER; of keys that are not announced any more.
        reason: Why, for the log.
    """

    years: float
    certificates: tuple[bytes, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was found.

    Attributes:
        entries: How many entries from the log's beginning on go; 0 if none may.
        bodies: How many bodies went, or would.
        stop: Why no more.
        index: Of the entry that says so; None after a dry run or if nothing goes.
    """

    entries: int
    bodies: int
    stop: str
    index: int | None


@dataclass(slots=True)
class _Plan:
    entries: int = 0
    dropped: list[int] = field(default_factory=list)
    stop: str = "the log ends here"


async def prune_log(directory: Path, retention: Retention, *, dry_run: bool, clock: Clock = system_clock) -> Pruned:
    """Prune the log of the hub in a directory, which must not run.

    Raises:
        ConfigError: `store.in_use`; what is missing or malformed.
        LogIntegrityError, UnavailableError: as opening the store; nothing is dropped then.
        MalformedInputError: `certificate.malformed`.
    """
    files, config = HubFiles(directory), load_hub_config(directory)
    database = idle_database(files, config)
    await asyncio.to_thread(database.ensure_unused)
    store = await open_store(config, load_bundle(files.bundle).origin, files, clock)
    index: int | None = None
    try:
        plan = await _plan(store, retention, clock())
        if plan.dropped and not dry_run:

            async def say(tx: Tx) -> int:
                reason = retention.reason or f"kept for {retention.years:g} years after expiry"
                ts = await tx.now_ms()
                return await tx.append(
                    encode_entry(Admin(ts=ts, action="prune", bundle="", entries=plan.entries, reason=reason))
                )

            index = await store.write(say)
    finally:
        await store.close()
    if index is not None:
        await asyncio.to_thread(database.drop_bodies, plan.dropped)
    return Pruned(entries=plan.entries if plan.dropped else 0, bodies=len(plan.dropped), stop=plan.stop, index=index)


async def _plan(store: Store, retention: Retention, now_ms: int) -> _Plan:
    expiries = await _expiries(store, retention.certificates)
    open_jobs = await store.read(lambda tx: tx.open_jobs())
    open_from = min((job.intent_index for job in open_jobs if job.intent_index is not None), default=None)
    before_ms = now_ms - int(retention.years * _YEAR_MS)
    plan = _Plan()
    async for first, bundle in _bundles(store):
        dropped: list[int] = []
        for index, data in enumerate(bundle, start=first):
            if index == open_from:
                plan.stop = f"entry {index}: this intent has no result yet"
                return plan
            if not data:
                continue  # it went before
            entry = parse_entry(data)
            if plan_stop := _too_young(entry, expiries, before_ms):
                plan.stop = f"entry {index}: {plan_stop}"
                return plan
            if not isinstance(entry, _KEPT):
                dropped.append(index)
        if not dropped and all(bundle):
            # The hub tells a pruned bundle by what is missing in it.
            plan.stop = f"entries {first} to {first + TILE_WIDTH - 1} hold nothing that may go"
            return plan
        plan.entries = first + TILE_WIDTH
        plan.dropped += dropped
    return plan


def _too_young(entry: Entry, expiries: Mapping[str, int], before_ms: int) -> str:
    """Why an entry must stay; empty if it may go."""
    if entry.ts >= before_ms:
        return "it was written too recently"
    if not isinstance(entry, Intent):
        return ""  # a result lies with its intent or behind it
    expiry_ms = expiries.get(entry.key)
    if expiry_ms is None:
        return f"nobody knows when the certificate of key {entry.key} expired: name it with --certificate"
    if expiry_ms >= before_ms:
        return f"the certificate of key {entry.key} has not expired, or too recently"
    return ""


async def _expiries(store: Store, certificates: tuple[bytes, ...]) -> dict[str, int]:
    """When the last certificate of each key expires, in milliseconds since the epoch."""
    profiles = await store.read(lambda tx: tx.profiles())
    found: dict[str, int] = {}
    for chain in (*(profile.chain for profile in profiles if profile.chain), *((one,) for one in certificates)):
        name = key_sha256(chain)
        expiry_ms = int(parse_certificate(chain[0]).not_after.timestamp() * 1000)
        found[name] = max(expiry_ms, found.get(name, 0))
    return found


async def _bundles(store: Store) -> AsyncIterator[tuple[int, tuple[bytes, ...]]]:
    """(first index, entries) of each full bundle."""
    for first in range(0, store.head.size // TILE_WIDTH * TILE_WIDTH, TILE_WIDTH):

        async def read(tx: ReadTx, start: int = first) -> tuple[bytes, ...]:
            return await tx.entries(start, TILE_WIDTH)

        bundle = await store.read(read)
        if len(bundle) != TILE_WIDTH:
            raise MalformedInputError("bundle.malformed", f"the log lacks entries from {first} on")
        yield first, bundle
