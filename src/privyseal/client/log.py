# SPDX-License-Identifier: Apache-2.0
"""Reading the whole log from a hub's web listener (C2SP tlog-tiles) and checking it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from privyseal.client.config import ClientConfig
from privyseal.client.transport import WebTransport, web_context
from privyseal.errors import LogIntegrityError, MalformedInputError, VerificationError
from privyseal.tlog.audit import LogCheck, LogSummary
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint
from privyseal.tlog.note import parse_vkey
from privyseal.tlog.proof import consistency_proof, consistency_tiles, verify_consistency
from privyseal.tlog.tile import EntryBundle, decode_bundle

__all__ = ["LogReader", "VerifiedLog"]

_WIDTH: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLog:
    """A log that was recomputed from its first entry to a signed checkpoint."""

    origin: str
    summary: LogSummary


class LogReader:
    """The public side of one hub's log."""

    def __init__(self, config: ClientConfig) -> None:
        self._bundle = config.load_bundle()
        self._web = WebTransport(config.web_url, web_context(self._bundle.statement.ca))

    def checkpoint(self) -> Checkpoint:
        """The newest checkpoint, signed by the pinned log key.

        Raises:
            LogIntegrityError: `log.checkpoint` if it is not.
            UnavailableError, IdentityError: the hub cannot be reached, or is another.
        """
        note = self._web.request("GET", "/log/checkpoint")
        key = parse_vkey(self._bundle.statement.log_key)
        try:
            return open_checkpoint(note, origin=self._bundle.hub, verifiers=(key,))
        except (MalformedInputError, VerificationError) as error:
            raise LogIntegrityError(
                "log.checkpoint",
                f"the hub's checkpoint does not hold: {error}",
                hint="the hub shows another log than the one this client pinned when it joined",
            ) from error

    def check_extends(self, old: Checkpoint) -> Checkpoint:
        """The newest checkpoint, once it is shown to extend an older one.

        Raises:
            LogIntegrityError: `log.rewound` or `log.fork`. And what `checkpoint` raises.
        """
        new = self.checkpoint()
        if new.size < old.size:
            raise LogIntegrityError(
                "log.rewound",
                f"a checkpoint shows a log of {old.size} entries; the hub now shows {new.size}",
                hint="the hub's log was cut: keep the receipt, it proves that",
            )
        tiles = {tile: self._web.request("GET", f"/log/{tile.path}") for tile in consistency_tiles(old.size, new.size)}
        try:
            verify_consistency(
                old_size=old.size,
                new_size=new.size,
                old_root=old.root,
                new_root=new.root,
                proof=consistency_proof(old.size, new.size, tiles),
            )
        except (MalformedInputError, VerificationError) as error:
            raise LogIntegrityError(
                "log.fork",
                f"the hub's log of {new.size} entries does not extend the one of {old.size} that it signed before",
                hint="the hub's log was rewritten: keep the receipt, it proves that",
            ) from error
        return new

    def entries(self, start: int, size: int) -> Iterator[tuple[int, bytes]]:
        """(index, bytes) of the entries from `start` in a tree of `size`.

        Raises:
            LogIntegrityError: `log.bundle` if what the hub serves is no entry bundle.
        """
        for number in range(start // _WIDTH, -(-size // _WIDTH)):
            width = min(_WIDTH, size - number * _WIDTH)
            path = EntryBundle(index=number, width=width).path
            try:
                entries = decode_bundle(self._web.request("GET", f"/log/{path}"), width=width)
            except MalformedInputError as error:
                raise LogIntegrityError("log.bundle", f"/log/{path}: {error}") from error
            for place, entry in enumerate(entries):
                index = number * _WIDTH + place
                if index >= start:
                    yield index, entry

    def verify(self) -> VerifiedLog:
        """Recompute everything up to the newest checkpoint.

        Raises:
            LogIntegrityError: naming the place.
        """
        checkpoint = self.checkpoint()
        check = LogCheck()
        for _, entry in self.entries(0, checkpoint.size):
            check.feed(entry)
        check.check_checkpoint(checkpoint)
        return VerifiedLog(origin=checkpoint.origin, summary=check.summary())
