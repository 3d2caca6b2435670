# SPDX-License-Identifier: Apache-2.0
"""Putting one checkpoint before one witness: an agent over its link, or whoever has a URL."""

from dataclasses import replace
from typing import Final

from privyseal.errors import MalformedInputError, PrivysealError, UnavailableError, VerificationError
from privyseal.hub.links import AgentLink
from privyseal.hub.services.audit import Audit
from privyseal.hub.witness_http import WitnessClient, WitnessReply
from privyseal.ports.store import LogHead
from privyseal.tlog.checkpoint import parse_checkpoint, parse_decimal
from privyseal.tlog.cosignature import cosignatures
from privyseal.tlog.note import Note, NoteSignature, parse_note
from privyseal.tlog.quorum import PolicyWitness
from privyseal.tlog.witness import AddCheckpoint

__all__ = ["AskedWitness"]

_SIZE_TYPE: Final = "text/x.tlog.size"
#: Somebody else may show a witness checkpoints, too; then it tells where it stands.
_ATTEMPTS: Final = 3


class AskedWitness:
    """One witness of the policy, and what is known of it.

    Attributes:
        size: Tree size that it cosigned last, as far as the hub knows.
        problem: Why the last checkpoint was not cosigned; empty if it was.
        busy: It is being asked.
    """

    def __init__(self, witness: PolicyWitness, audit: Audit) -> None:
        self.witness: Final = witness
        self._audit: Final = audit
        self.size = 0
        self.problem = ""
        self.busy = False

    async def ask_agent(self, link: AgentLink, head: LogHead) -> NoteSignature:
        """Its cosignature on a checkpoint, over its link.

        Raises:
            UnavailableError: `witness.refused`, `witness.answer`, `agent.link_lost`.
        """
        # A job's proof starts at what the agent holds, and this moves it.
        async with link.sending:
            if head.size < link.held_size:
                raise UnavailableError("witness.refused", "it has seen a newer checkpoint meanwhile")
            answer = await link.add_checkpoint(await self._body(head, link.held_size))
            if answer.status == 200:
                link.held_size = head.size
        return self._taken(head, answer.status, answer.text)

    async def ask_url(self, client: WitnessClient, head: LogHead) -> NoteSignature:
        """The same over HTTP.

        Raises:
            UnavailableError: `witness.refused`, `witness.answer`, `witness.unreachable`.
        """
        reply = await client.add_checkpoint(self.witness.url, await self._body(head, self.size))
        for _ in range(_ATTEMPTS):
            if reply.status != 409 or reply.content_type != _SIZE_TYPE:
                break
            self.size = _told_size(reply)
            if self.size > head.size:
                raise UnavailableError(
                    "witness.refused", f"it has cosigned a log of {self.size} entries; this one has {head.size}"
                )
            reply = await client.add_checkpoint(self.witness.url, await self._body(head, self.size))
        return self._taken(head, reply.status, reply.text)

    async def _body(self, head: LogHead, old_size: int) -> str:
        note = parse_note(head.note)
        proofs = await self._audit.proofs(head, (), old_size)
        return AddCheckpoint(
            old_size=old_size, proof=proofs.consistency, note=note, checkpoint=parse_checkpoint(note.text)
        ).encode()

    def _taken(self, head: LogHead, status: int, text: str) -> NoteSignature:
        """The line of the witness's own key in its answer, once it verifies; whatever else stands there is left out."""
        if status != 200:
            raise UnavailableError("witness.refused", f"it refuses ({status}): {text.strip()[:200]}")
        key = self.witness.key
        try:
            answered = parse_note(f"{parse_note(head.note).text}\n{text}")
            own = tuple(one for one in answered.signatures if (one.name, one.key_id) == (key.name, key.key_id))
            found = cosignatures(replace(answered, signatures=own), (key,))
        except (MalformedInputError, VerificationError) as error:
            raise UnavailableError("witness.answer", f"it answers with no cosignature: {error.message}") from error
        if not found:
            raise UnavailableError("witness.answer", "it answers with a cosignature by another key")
        self.size = head.size
        return own[0]

    def failed(self, error: PrivysealError) -> None:
        """Remember why there is no cosignature."""
        self.problem = error.message


def _told_size(reply: WitnessReply) -> int:
    try:
        return parse_decimal(reply.text.removesuffix("\n"), "witness.answer", "the size")
    except MalformedInputError as error:
        raise UnavailableError("witness.answer", "it answers with no size") from error


def cosigned_note(note: str, lines: tuple[NoteSignature, ...]) -> Note:
    """A checkpoint with cosignatures behind the log's own signature."""
    parsed = parse_note(note)
    return replace(parsed, signatures=(*parsed.signatures, *lines))
