# SPDX-License-Identifier: Apache-2.0
"""What an administrator does with authority keys: invite, grant, revoke. The hub only takes note."""

import hashlib
import secrets
from pathlib import Path
from typing import Final

import msgspec

from privyseal.client.transport import WebTransport, web_context
from privyseal.errors import ConfigError
from privyseal.identity.authority import (
    AuthorityStatement,
    GrantStatement,
    Invitation,
    Revocation,
    open_authority,
    seal_authority,
)
from privyseal.identity.bundle import TrustBundle, open_successor, seal_bundle
from privyseal.identity.joining import JoinCodeText, format_join_code
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import Clock, system_clock
from privyseal.tlog.quorum import parse_policy
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

    def name_witnesses(self, policy: str) -> TrustBundle:
        """Have hub, agents and clients rely on these witnesses; the new trust bundle.

        Args:
            policy: C2SP tlog-policy; empty to rely on none any more.

        Raises:
            MalformedInputError: `quorum.malformed`. VerificationError: `bundle.quorum`.
            ConfigError: `witness.here` if a witness runs on the hub's own host.
        """
        if policy:
            parse_policy(policy.encode())
        statement = self._bundle.statement
        successor = seal_bundle(
            msgspec.structs.replace(statement, serial=statement.serial + 1, witnesses=policy), self._keys
        )
        self._bundle = open_successor(successor.envelope, self._bundle)
        self._web.request("PUT", "/v1/bundle", successor.envelope)
        return self._bundle

    def revoke(self, role: str, name: str) -> None:
        """End a standing at once."""
        now_ms = self._clock()
        self._decree(
            Revocation(hub=self._bundle.hub, issued=now_ms, not_after=now_ms + _DECREE_MS, role=role, name=name)
        )
