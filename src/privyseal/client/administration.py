# SPDX-License-Identifier: Apache-2.0
"""What an administrator does with authority keys: invite, grant, revoke, unlock. The hub only takes note."""

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from privyseal.client.transport import WebTransport, web_context
from privyseal.errors import ConfigError, VerificationError
from privyseal.identity.authority import (
    AuthorityStatement,
    GrantStatement,
    Invitation,
    PriorityName,
    QueueCancel,
    QueueMove,
    Revocation,
    Unlock,
    UnlockQuestion,
    open_authority,
    seal_authority,
)
from privyseal.identity.bundle import AgentKey, TrustBundle, open_successor, seal_bundle
from privyseal.identity.joining import JoinCodeText, format_join_code
from privyseal.identity.keyfile import load_ed25519
from privyseal.identity.unlocking import UNLOCK_MS, seal_unlock
from privyseal.ports.clock import Clock, system_clock
from privyseal.tlog.quorum import parse_policy
from privyseal.wire.api import decode_body
from privyseal.wire.membership import UnlockView
from privyseal.wire.names import NAME_RULE, is_name

__all__ = ["Administration"]

_INVITATION_MS: Final = 15 * 60_000
_DECREE_MS: Final = 15 * 60_000
_MAX_GRANT_DAYS: Final = 3650


class Administration:
    """Acts for one hub with these authority keys."""

    def __init__(
        self,
        *,
        bundle: TrustBundle,
        web_url: str,
        authority_paths: tuple[Path, ...],
        clock: Clock = system_clock,
    ) -> None:
        self._bundle = bundle
        self._web_url = web_url
        self._web = WebTransport(web_url, web_context(bundle.statement.ca))
        self._keys = tuple(load_ed25519(path) for path in authority_paths)
        self._clock = clock

    def _decree(self, statement: AuthorityStatement) -> bytes:
        envelope = seal_authority(statement, self._keys)
        open_authority(envelope, self._bundle, self._clock())  # a wrong key is noticed here, not at the hub
        self._web.request("POST", "/v1/authority", envelope)
        return envelope

    def invite(self, role: str, name: str, profiles: tuple[str, ...]) -> str:
        """A join code for one machine, good once and for 15 minutes.

        Raises:
            ConfigError: `member.name`. VerificationError: `authority.quorum`.
        """
        if not is_name(name):
            raise ConfigError("member.name", f"{name!r} cannot be a name: {NAME_RULE}")
        secret = secrets.token_bytes(16)
        now_ms = self._clock()
        invitation = Invitation(
            hub=self._bundle.hub,
            issued=now_ms,
            not_after=now_ms + _INVITATION_MS,
            role=role,
            name=name,
            profiles=profiles,
            secret_sha256=hashlib.sha256(secret).hexdigest(),
        )
        self._decree(invitation)
        return format_join_code(
            JoinCodeText(role=role, web_url=self._web_url, bundle_sha256=self._bundle.sha256, secret=secret)
        )

    def grant(self, request_key: bytes, profile: str, formats: tuple[str, ...], days: int) -> None:
        """Let a request key use a key profile, also a pinned one, for some days.

        Raises:
            ConfigError: `grant.days`. VerificationError: `authority.quorum`.
        """
        if not 1 <= days <= _MAX_GRANT_DAYS:
            raise ConfigError("grant.days", f"a grant cannot hold for {days} days; 1 to {_MAX_GRANT_DAYS} are possible")
        now_ms = self._clock()
        self._decree(
            GrantStatement(
                hub=self._bundle.hub,
                issued=now_ms,
                not_after=now_ms + days * 86_400_000,
                request_key=request_key,
                profile=profile,
                formats=formats,
            )
        )

    def change_trust(
        self, *, witnesses: str | None = None, agents: Mapping[str, bytes | None] | None = None
    ) -> TrustBundle:
        """Have hub, agents and clients go by another trust bundle, which is returned.

        Args:
            witnesses: C2SP tlog-policy of those to rely on; empty to rely on none any more, None to leave it.
            agents: Raw sealing keys by agent, beside those that are known; None to forget one.

        Raises:
            MalformedInputError: `quorum.malformed`. VerificationError: `bundle.quorum`.
            ConfigError: `witness.here` if a witness runs on the hub's own host; `unlock.agent_unknown` if an agent that
                is to be forgotten is not known.
        """
        if witnesses:
            parse_policy(witnesses.encode())
        statement = self._bundle.statement
        successor = seal_bundle(
            msgspec.structs.replace(
                statement,
                serial=statement.serial + 1,
                witnesses=statement.witnesses if witnesses is None else witnesses,
                agents=self._agents(agents or {}),
            ),
            self._keys,
        )
        self._bundle = open_successor(successor.envelope, self._bundle)
        self._web.request("PUT", "/v1/bundle", successor.envelope)
        return self._bundle

    def _agents(self, changes: Mapping[str, bytes | None]) -> tuple[AgentKey, ...]:
        known = {agent.name: agent.key for agent in self._bundle.statement.agents}
        for name, key in changes.items():
            if key is None:
                if known.pop(name, None) is None:
                    raise self._agent_unknown(name)
            elif not is_name(name):
                raise ConfigError("member.name", f"{name!r} cannot be a name: {NAME_RULE}")
            else:
                known[name] = key
        return tuple(AgentKey(name=name, key=key) for name, key in sorted(known.items()))

    def _agent_unknown(self, name: str) -> ConfigError:
        known = ", ".join(agent.name for agent in self._bundle.statement.agents) or "none"
        return ConfigError(
            "unlock.agent_unknown",
            f"the pinned trust bundle names no sealing key of agent {name!r}; it names those of: {known}",
            hint="privyseal hub trust --agent NAME=x25519:…; `privyseal agent show` on the token's host prints the key",
        )

    def ask_unlock(self, agent: str, token: str) -> UnlockView:
        """Ask an agent for a token's serial number, and for the nonce of an unlock.

        Raises:
            ConfigError: `unlock.agent_unknown` if a PIN could not be sealed to the agent.
            VerificationError: `authority.quorum`. PrivysealError: what hub and agent say.
        """
        self._sealing_key(agent)
        now_ms = self._clock()
        question = UnlockQuestion(
            hub=self._bundle.hub, issued=now_ms, not_after=now_ms + UNLOCK_MS, agent=agent, token=token
        )
        return self._unlocks(question)

    def unlock(self, asked: UnlockView, pin: bytes | bytearray, *, forgive_refused: bool) -> UnlockView:
        """Hand a PIN in: sealed to the agent's key in the pinned bundle, for the token that the agent named, once.

        Raises:
            PrivysealError: what hub and agent say.
        """
        now_ms = self._clock()
        unlock = Unlock(
            hub=self._bundle.hub,
            issued=now_ms,
            not_after=now_ms + UNLOCK_MS,
            agent=asked.agent,
            token=asked.token,
            serial=asked.serial,
            nonce=asked.nonce,
            forgive_refused=forgive_refused,
            sealed=b"",
        )
        return self._unlocks(seal_unlock(unlock, pin, self._sealing_key(asked.agent)))

    def _unlocks(self, statement: UnlockQuestion | Unlock) -> UnlockView:
        envelope = seal_authority(statement, self._keys)
        open_authority(envelope, self._bundle, self._clock())  # a wrong key is noticed here
        answer = decode_body(self._web.request("POST", "/v1/unlocks", envelope), UnlockView)
        if (answer.agent, answer.token) != (statement.agent, statement.token):
            raise VerificationError("unlock.answer", "the hub answers for another agent or token than was asked for")
        return answer

    def _sealing_key(self, agent: str) -> bytes:
        for known in self._bundle.statement.agents:
            if known.name == agent:
                return known.key
        raise self._agent_unknown(agent)

    def cancel_request(self, request_id: str, *, reason: str = "") -> None:
        """Have what the token has not begun of a client's request not signed; a USB lease ends.

        Args:
            request_id: The whole id.
            reason: Told to who has the lease.

        Raises:
            ConfigError: `request.unknown`, `request.ended`. VerificationError: `authority.quorum`.
        """
        now_ms = self._clock()
        self._decree(
            QueueCancel(
                hub=self._bundle.hub,
                issued=now_ms,
                not_after=now_ms + _DECREE_MS,
                request=request_id,
                reason=reason,
            )
        )

    def move_request(self, request_id: str, priority: PriorityName) -> None:
        """Put what waits of a client's request into another class.

        Raises:
            ConfigError: `request.unknown`, `request.not_queued`. VerificationError: `authority.quorum`.
        """
        now_ms = self._clock()
        order = QueueMove(
            hub=self._bundle.hub,
            issued=now_ms,
            not_after=now_ms + _DECREE_MS,
            request=request_id,
            priority=priority,
        )
        self._decree(order)

    def revoke(self, role: str, name: str) -> None:
        """End a standing at once."""
        now_ms = self._clock()
        self._decree(
            Revocation(hub=self._bundle.hub, issued=now_ms, not_after=now_ms + _DECREE_MS, role=role, name=name)
        )
