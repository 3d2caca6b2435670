# SPDX-License-Identifier: Apache-2.0
"""The first entries of a log: its genesis; and in a log that continues one that was given up, who stands and what may.

What a job rests on (an enrolment, a grant) is proven to the agent under the log of the day. So everybody who stands is
entered again, with the keys that they have, on the word of the trust bundle that begins the new log.
"""

import hashlib
from dataclasses import replace

from privyseal.errors import PrivysealError
from privyseal.hub.entries import enrol_entry, key_entry
from privyseal.identity.authority import open_authority
from privyseal.identity.bundle import TrustBundle
from privyseal.ports.store import Grant, Tx
from privyseal.tlog.entry import Admin, GrantEntry, encode_entry

__all__ = ["write_genesis"]


async def write_genesis(tx: Tx, bundle: TrustBundle) -> None:
    """Append the first entries to an empty log."""
    now_ms = await tx.now_ms()
    former = tuple(head for log in bundle.statement.former[-1:] for head in log.heads)
    await tx.append(encode_entry(Admin(ts=now_ms, action="genesis", bundle=bundle.sha256.hex(), former=former)))
    for enrolment in await tx.enrolments():
        if enrolment.revoked_ms is None:
            index = await tx.append(encode_entry(enrol_entry(enrolment, "join", bundle.sha256, now_ms)))
            await tx.add_enrolment(replace(enrolment, entry_index=index))
    for grant in await tx.grants():
        await _grant_again(tx, grant, bundle, now_ms)
    for profile in await tx.profiles():
        agent = await tx.enrolment("agent", profile.agent)
        if agent is not None:
            index = await tx.append(encode_entry(key_entry(profile, agent.request_key, now_ms)))
            await tx.put_profile(replace(profile, entry_index=index))


async def _grant_again(tx: Tx, grant: Grant, bundle: TrustBundle, now_ms: int) -> None:
    """A grant whose statement still holds; another one is refused whenever it is used."""
    try:
        signed = open_authority(grant.envelope, bundle, now_ms)
    except PrivysealError:
        return
    entry = GrantEntry(
        ts=now_ms,
        client=hashlib.sha256(grant.request_key).hexdigest(),
        profile=grant.profile,
        statement=signed.sha256.hex(),
        authorities=signed.authorities,
    )
    index = await tx.append(encode_entry(entry))
    await tx.add_grant(replace(grant, entry_index=index))
