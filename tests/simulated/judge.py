# SPDX-License-Identifier: Apache-2.0
"""Who knows what truly happened: the durable log, the token's own counter, what clients were given. He judges.

I1  no signature is released without a durable RESULT
I2  no token use without an earlier durable INTENT
I3  at most one token use for each (request, item, fence)
I4  results <= token uses <= intents, at every moment
I5  once all is quiet: results <= token uses <= results + unknown outcomes
P4  at most one signature is released for each (request, item), and at most one repetition is tried
"""

import hashlib
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field

from lying_hub import Trust
from privyseal.client.receipts import CheckedReceipt, check_receipt
from privyseal.errors import PrivysealError
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from privyseal.tlog.entry import Intent, Result, TokenEvent, Unknown, parse_entry
from privyseal.tlog.note import parse_note, parse_vkey
from privyseal.tlog.receipt import parse_receipt
from privyseal.tlog.tree import EMPTY_ROOT
from privyseal.wire.api import RequestView
from simulated.site import Asked

__all__ = ["Judge"]

_Item = tuple[str, int]


@dataclass(kw_only=True)
class _Story:
    """What is on record of one item."""

    fences: list[int] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    unknown: int = 0
    not_used: int = 0
    uses: int = 0


@dataclass(kw_only=True)
class Judge:
    """Collects evidence while a schedule runs; `violations` says what was broken."""

    trust: Trust
    log: list[bytes] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    signatures_made: set[str] = field(default_factory=set)
    released: dict[_Item, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    _stories: dict[str, _Story] = field(default_factory=lambda: defaultdict(_Story))
    _told: int = 0
    _digests: dict[_Item, str] = field(default_factory=dict)
    _check: LogCheck = field(default_factory=LogCheck)
    _roots: list[bytes] = field(default_factory=lambda: [EMPTY_ROOT])
    _receipts: dict[str, CheckedReceipt] = field(default_factory=dict)

    def violated(self, rule: str, what: str) -> None:
        self.violations.append(f"{rule}: {what}")

    def committed(self, connection: sqlite3.Connection) -> None:
        """A commit of the hub's database is durable."""
        rows = connection.execute("SELECT body FROM log_entry WHERE entry_index >= ?", (len(self.log),))
        for (body,) in rows.fetchall():
            self.log.append(body)
            try:
                entry = self._check.feed(body)
            except PrivysealError as error:
                self.violated("log", str(error))
                entry = parse_entry(body)
            self._roots.append(self._check.summary().root)
            self._take(entry)

    def _take(self, entry: object) -> None:
        match entry:
            case Intent():
                self._digests[entry.request, entry.item] = entry.digest
                self._stories[entry.digest].fences.append(entry.fence)
            case Result(outcome="ok"):
                story = self._story(entry)
                story.results.append(entry.signature)
                if entry.signature not in self.signatures_made:
                    self.violated("I4", f"RESULT for {_name(entry)} names a signature that the token never made")
                if len(story.results) > story.uses:
                    self.violated("I4", f"{len(story.results)} RESULTs after {story.uses} uses for {_name(entry)}")
            case Result(outcome="not-used"):
                self._story(entry).not_used += 1
            case Unknown():
                self._story(entry).unknown += 1
            case TokenEvent():
                self._told += 1
                if entry.seq != self._told:
                    self.violated("events", f"event {entry.seq} of the agent is on record as its {self._told}.")

    def _story(self, entry: Result | Unknown) -> _Story:
        return self._stories[self._digests.get((entry.request, entry.item), "")]  # of another log, if not known

    def used(self, digest: bytes, signature: bytes) -> None:
        """The token was used."""
        story = self._stories[digest.hex()]
        story.uses += 1
        self.signatures_made.add(hashlib.sha256(signature).hexdigest())
        if not story.fences:
            self.violated("I2", f"the token was used for digest {digest.hex()[:8]} without an INTENT")
        elif story.uses > len(set(story.fences)):
            self.violated("I3", f"{story.uses} uses under fences {story.fences} for digest {digest.hex()[:8]}")
        if story.uses > len(story.fences):
            self.violated("I4", f"{story.uses} uses after {len(story.fences)} INTENTs for digest {digest.hex()[:8]}")
        if story.uses > 2:
            self.violated("P4", f"the token was used {story.uses} times for digest {digest.hex()[:8]}")

    def leaves(self, asked: Asked, view: RequestView) -> None:
        """An answer leaves the hub, whether it arrives or not."""
        for place, item in enumerate(view.items, start=view.first):
            sha256 = hashlib.sha256(item.signature).hexdigest()
            if item.state == "signed" and sha256 not in self._stories[asked.digests[place].hex()].results:
                name = f"item {place} of {asked.request_id[:8]}"
                self.violated("I1", f"a signature is released for {name} without a durable RESULT")

    def told(self, asked: Asked, view: RequestView) -> None:
        """A client was given an answer."""
        if view.id != asked.request_id:
            self.violated("P4", "a client was given the answer to another request")
        for place, item in enumerate(view.items, start=view.first):
            if item.state != "signed":
                if not item.code:
                    self.violated("end", f"item {place} of {asked.request_id[:8]} failed without a code")
                continue
            self.released[asked.request_id, place].add(item.signature)
            if len(self.released[asked.request_id, place]) > 1:
                self.violated("P4", f"two signatures were released for item {place} of {asked.request_id[:8]}")
            self._check_released(asked, place, item.signature, item.receipt)

    def _check_released(self, asked: Asked, place: int, signature: bytes, receipt: str) -> None:
        name = f"item {place} of {asked.request_id[:8]}"
        sha256 = hashlib.sha256(signature).hexdigest()
        try:
            checked = self._receipt(receipt)
        except PrivysealError as error:
            self.violated("receipt", f"that of {name} does not hold: {error}")
            return
        entry = checked.entry
        if (entry.request, entry.item, entry.signature) != (asked.request_id, place, sha256):
            self.violated("receipt", f"that of {name} is of another signature")
        if self.log[checked.index : checked.index + 1] != [parse_receipt(receipt).extra]:
            self.violated("receipt", f"that of {name} is of an entry that the log does not hold")

    def _receipt(self, text: str) -> CheckedReceipt:
        if text not in self._receipts:
            self._receipts[text] = check_receipt(text, self.trust.bundle)
        return self._receipts[text]

    def at_rest(self, hub_image: bytes, journal_image: bytes) -> None:
        """All is quiet: the accounts must balance."""
        for digest, story in self._stories.items():
            if not len(story.results) <= story.uses <= len(story.results) + story.unknown:
                self.violated(
                    "I5",
                    f"{len(story.results)} results, {story.uses} uses, {story.unknown} unknown for digest {digest[:8]}",
                )
            if len(story.results) > 1:
                self.violated("P4", f"{len(story.results)} signatures on record for digest {digest[:8]}")
            if len(story.fences) - story.not_used > 2:
                self.violated("P4", f"more than one repetition for digest {digest[:8]}: fences {story.fences}")
        self._check_log(hub_image)
        if journal_image:
            self._check_journal(journal_image)

    def _check_log(self, image: bytes) -> None:
        """The log as it lies on the disk is the one that was committed, and its newest checkpoint holds."""
        connection = sqlite3.connect(":memory:")
        connection.deserialize(image)
        entries = [row[0] for row in connection.execute("SELECT body FROM log_entry ORDER BY entry_index")]
        notes = [row[0] for row in connection.execute("SELECT note FROM log_checkpoint ORDER BY number")]
        waiting = connection.execute("SELECT count(*) FROM job WHERE state IN ('queued', 'intent')").fetchone()[0]
        connection.close()
        if entries != self.log:
            self.violated("log", "its entries are not those that were committed")
        if waiting:
            self.violated("end", f"{waiting} items were never ended")
        if still_open := self._check.summary().open_intents:
            self.violated("end", f"intents at {still_open} are open")
        try:
            self._check.check_checkpoint(self._opened(notes[-1]))
        except PrivysealError as error:
            self.violated("log", str(error))
        for note in notes:
            self._check_prefix(note, "stored by the hub")

    def _check_prefix(self, note: str, where: str) -> None:
        checkpoint = parse_checkpoint(parse_note(note).text)
        if checkpoint.size >= len(self._roots) or self._roots[checkpoint.size] != checkpoint.root:
            self.violated("fork", f"a checkpoint of {checkpoint.size} entries, {where}, is no prefix of the log")

    def _opened(self, note: str) -> Checkpoint:
        key = parse_vkey(self.trust.bundle.statement.log_key)
        return open_checkpoint(note, origin=self.trust.bundle.hub, verifiers=(key,))

    def _check_journal(self, image: bytes) -> None:
        """What the agent signed under is this log, and what it began is on record in it."""
        connection = sqlite3.connect(":memory:")
        connection.deserialize(image)
        rows = connection.execute("SELECT request_id, item, fence, entry, checkpoint_note FROM operation").fetchall()
        connection.close()
        on_record = set(self.log)
        for request, item, fence, entry, note in rows:
            self._check_prefix(note, "under which the agent signed")
            if entry not in on_record:
                self.violated("I2", f"the agent began ({request[:8]}, {item}, {fence}) under an entry not in the log")


def _name(entry: Result) -> str:
    return f"item {entry.item} of {entry.request[:8]}"
