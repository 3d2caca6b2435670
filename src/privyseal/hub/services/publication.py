# SPDX-License-Identifier: Apache-2.0
"""The checkpoints that the hub shows to the world: with the log's ML-DSA-44 line, and with those of witnesses.

Only what is published has these lines. Jobs and receipts carry the store's checkpoint as it was committed, with the
log's Ed25519 signature alone, and wait for none of this.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from privyseal.ports.store import Store
from privyseal.tlog.checkpoint import parse_checkpoint
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.note import Note, NoteSignature, parse_note

__all__ = ["Publication"]

_SECONDS_BETWEEN: Final = 1.0

#: The log says that the tree extends all that it signed, and leaves it to witnesses to say when a tree was the newest.
_NO_TIME: Final = 0


class _LogLine:
    """The log's ML-DSA-44 line on the checkpoint that was shown last; at most one is made in a second.

    It is made where it is asked for, in half a millisecond and with nothing to wait for in between: so many readers
    share one, and none of them makes the event loop sign twice.
    """

    def __init__(self, cosigner: Cosigner, monotonic: Callable[[], float]) -> None:
        self._cosigner: Final = cosigner
        self._monotonic: Final = monotonic
        self._made: tuple[str, float, NoteSignature] | None = None

    def over(self, text: str) -> tuple[NoteSignature, ...]:
        """The line, or none: then one over another checkpoint was made less than a second ago."""
        if self._made is None or self._made[0] != text:
            now = self._monotonic()
            if self._made is not None and now - self._made[1] < _SECONDS_BETWEEN:
                return ()
            self._made = (text, now, self._cosigner.sign(text, _NO_TIME))
        return (self._made[2],)


class Publication:
    """What `/log/checkpoint` and `/log/cosigned` show. All its calls come from the event loop."""

    def __init__(self, *, store: Store, cosigner: Cosigner, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Nothing is published yet.

        Args:
            store: Whose head is the newest checkpoint.
            cosigner: The log's ML-DSA-44 key under the log's name.
            monotonic: Seconds that never go back.
        """
        self._store: Final = store
        self._newest_line: Final = _LogLine(cosigner, monotonic)
        self._cosigned_line: Final = _LogLine(cosigner, monotonic)
        self._cosigned: Note | None = None
        self._witness_lines: tuple[NoteSignature, ...] = ()

    def newest(self) -> str:
        """The store's newest checkpoint, never an older one, with every further line that there is over just it.

        Whoever holds a receipt asks for a checkpoint that covers it, and must not be shown a log that looks cut: so a
        head that is newer than the last ML-DSA-44 line is shown without one until a second has passed.
        """
        note = parse_note(self._store.head.note)
        is_cosigned = self._cosigned is not None and self._cosigned.text == note.text
        return _shown(note, self._newest_line.over(note.text), self._witness_lines if is_cosigned else ())

    def cosigned(self) -> str | None:
        """The newest checkpoint that has lines of witnesses; None if there is none since this process started."""
        if self._cosigned is None:
            return None
        return _shown(self._cosigned, self._cosigned_line.over(self._cosigned.text), self._witness_lines)

    def add(self, note_text: str, lines: tuple[NoteSignature, ...]) -> None:
        """Publish witnesses' lines. Those on an older checkpoint than the newest cosigned one are dropped.

        Args:
            note_text: The checkpoint that they cosigned, as the store's head had it: text and the log's signature.
            lines: Cosignatures on it that the caller has verified, of as many keys as it is configured with; a line
                takes the place of an earlier one of its key.

        Raises:
            MalformedInputError: `note.malformed`, `checkpoint.malformed`.
        """
        note = parse_note(note_text)
        if not lines:
            return
        if self._cosigned is None or _size(note) > _size(self._cosigned):
            self._cosigned, self._witness_lines = note, ()
        if self._cosigned.text == note.text:
            known = {(line.name, line.key_id): line for line in (*self._witness_lines, *lines)}
            self._witness_lines = tuple(known.values())


def _size(note: Note) -> int:
    return parse_checkpoint(note.text).size


def _shown(note: Note, *further: tuple[NoteSignature, ...]) -> str:
    return replace(note, signatures=sum(further, note.signatures)).encode()
