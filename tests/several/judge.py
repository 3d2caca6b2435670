# SPDX-License-Identifier: Apache-2.0
"""Holds what clients were told against the log, and the log against the token: I1 to I5, with nobody's word for it.

A request that was accepted ends, with one signature for each item, which verifies and whose receipt holds; the log is
sound, and records exactly these; the token was used for nothing that does not stand there.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cell_site import Cell
from privyseal.client.log import LogReader
from privyseal.client.log_files import verify_log
from privyseal.client.receipts import check_receipt
from privyseal.errors import PrivysealError
from privyseal.hub.entries import leaf_spki
from privyseal.identity.bundle import TrustBundle
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.tlog.entry import Intent, Result, Unknown, parse_entry
from programs import privyseal, succeeded, until
from several.clients import History

__all__ = ["Account", "account_of", "judge", "judge_agent"]

#: What an item may end with that is no signature: its token was interrupted twice, and nobody knows what it did.
_UNKNOWN = frozenset({"token.outcome_unknown", "token.crashed", "token.timeout"})
Key = tuple[str, int]


@dataclass(kw_only=True)
class Account:
    """What a log records of token operations, by (request, item), and by digest."""

    size: int = 0
    intents: dict[int, Intent] = field(default_factory=dict)
    last_intents: dict[Key, Intent] = field(default_factory=dict)
    signatures: dict[Key, list[str]] = field(default_factory=lambda: defaultdict(list))
    unknown: Counter[str] = field(default_factory=Counter)
    failed: dict[Key, str] = field(default_factory=dict)
    signed: Counter[str] = field(default_factory=Counter)
    fences: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))

    def take(self, index: int, data: bytes) -> None:
        entry = parse_entry(data)
        match entry:
            case Intent():
                self.intents[index] = self.last_intents[entry.request, entry.item] = entry
                self.fences[entry.agent, entry.key].append(entry.fence)
            case Result() if entry.outcome == "ok":
                self.signatures[entry.request, entry.item].append(entry.signature)
                self.signed[self.intents[entry.intent].digest] += 1
            case Result() if entry.outcome == "failed":
                self.failed[entry.request, entry.item] = entry.code
            case Unknown():
                self.unknown[self.intents[entry.intent].digest] += 1


def account_of(cell: Cell, client: str = "client") -> Account:
    """The account, once the whole log has been recomputed and found sound, with no intent open."""
    reader = LogReader(cell.site.client(client))
    assert verify_log(reader).summary.open_intents == ()
    account = Account(size=reader.checkpoint().size)
    for index, data in reader.entries(0, account.size):
        account.take(index, data)
    return account


def judge(
    cell: Cell,
    histories: Iterable[History],
    *,
    bound_seconds: float,
    may_fail: Collection[str] = (),
    client: str = "client",
) -> list[str]:
    """What is wrong, in words; nothing if all of it holds.

    Args:
        cell: With a hub that runs.
        histories: All requests that were ever made at this cell.
        bound_seconds: None may have waited longer.
        may_fail: Codes with which an item may have ended, if the log says so, too.
        client: Whose log this is.
    """
    asked = list(histories)
    account = until(lambda: _settled(cell, client), "a log without open intents", seconds=60)
    wrong = [
        f"{key}: {len(found)} signatures in the log" for key, found in account.signatures.items() if len(found) > 1
    ]
    for history in asked:
        wrong += _judge_history(cell, history, account, bound_seconds, may_fail)
    known = {history.request_id for history in asked}
    wrong += [f"{request}: nobody asked for it" for request, _ in account.signatures if request not in known]
    used = sum((token.signed() for token in cell.tokens), Counter[str]())
    for digest in used.keys() | account.signed.keys():
        least, most = account.signed[digest], account.signed[digest] + account.unknown[digest]
        if not least <= used[digest] <= most:
            wrong.append(f"{digest}: the token signed {used[digest]} times, the log says {least} to {most}")
    wrong += [f"{place}: fences fall: {fences}" for place, fences in account.fences.items() if fences != sorted(fences)]
    return wrong


def _settled(cell: Cell, client: str) -> Account | None:
    try:
        return account_of(cell, client)
    except (AssertionError, PrivysealError):
        return None


def _judge_history(
    cell: Cell, history: History, account: Account, bound_seconds: float, may_fail: Collection[str]
) -> list[str]:
    name = history.request_id[:8]
    if history.ended_s is None or history.failure is not None:
        return [f"{name}: not answered: {history.failure}"]
    wrong = [] if history.seconds <= bound_seconds else [f"{name}: waited {history.seconds:.1f} s"]
    if len(history.items) != len(history.asked.preimages):
        return [*wrong, f"{name}: {len(history.items)} answers for {len(history.asked.preimages)} items"]
    bundle = cell.site.client().load_bundle()
    for place in range(len(history.items)):
        try:
            wrong += _judge_item(history, place, account, bundle, may_fail)
        except PrivysealError as error:
            wrong.append(f"{name}/{place}: {error}")
    return wrong


def _judge_item(
    history: History, place: int, account: Account, bundle: TrustBundle, may_fail: Collection[str]
) -> list[str]:
    key, item, name = (history.request_id, place), history.items[place], f"{history.request_id[:8]}/{place}"
    recorded, intent = account.signatures.get(key, []), account.last_intents.get(key)
    if intent is None:
        return [f"{name}: {item.state} {item.code}, and no intent in the log"]
    if item.state != "signed":
        is_given_up = not recorded and item.code in _UNKNOWN and account.unknown[intent.digest] >= 2
        is_given_up |= not recorded and account.failed.get(key) == item.code in may_fail
        return [] if is_given_up else [f"{name}: {item.state} {item.code} {item.message}, {recorded}"]
    entry = check_receipt(item.receipt, bundle).entry
    signature = hashlib.sha256(item.signature).hexdigest()
    wrong = []
    if (entry.request, entry.item, entry.signature) != (*key, signature) or recorded != [signature]:
        wrong.append(f"{name}: the receipt or the log is of another signature")
    spki = leaf_spki(history.chains[item.chain])
    verify_digest(spki, Mechanism(intent.mechanism), bytes.fromhex(intent.digest), item.signature)
    if intent.preimage != hashlib.sha256(history.asked.preimages[place].signed).hexdigest():
        wrong.append(f"{name}: another preimage was signed")
    return wrong


def judge_agent(cell: Cell, folder: Path) -> None:
    """What the agent signed under stands in the log (`log verify --agent`)."""
    succeeded(privyseal("agent", "export", "--dir", cell.site.agent_directory, folder))
    succeeded(cell.site.run("log", "verify", "--agent", folder))
