# SPDX-License-Identifier: Apache-2.0
"""Enrolment: authority statements arrive, join codes are redeemed, standings end."""

import datetime as dt
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from privyseal.errors import ConfigError, IdentityError, MalformedInputError
from privyseal.hub.entries import enrol_entry
from privyseal.identity.authority import (
    GrantStatement,
    Invitation,
    QueueCancel,
    QueueMove,
    Revocation,
    SignedStatement,
    Unlock,
    UnlockQuestion,
    open_authority,
)
from privyseal.identity.ca import check_csr, issue_member, member_uri
from privyseal.identity.joining import ROLES, proof_message
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.clock import Clock
from privyseal.ports.store import Enrolment, Grant, JoinCode, ReadTx, Store, Tx
from privyseal.tlog.entry import GrantEntry, encode_entry
from privyseal.wire.membership import JoinRequest

__all__ = ["Enrolments", "Joined", "TlsAuthority"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsAuthority:
    """The hub's TLS CA."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A new member, its certificate, and a checkpoint whose tree holds its `enrol` entry."""

    enrolment: Enrolment
    certificate_pem: str
    checkpoint: str


class Enrolments:
    """Who stands, and how that changes."""

    def __init__(
        self,
        *,
        store: Store,
        trust: PinnedTrust,
        authority: TlsAuthority,
        clock: Clock,
        ordered: Callable[[SignedStatement], Awaitable[None]],
        remember_ms: int | None,
    ) -> None:
        """Keep enrolments.

        Args:
            store: Where they stand.
            trust: The trust bundle in force.
            authority: The TLS CA.
            clock: The time.
            ordered: Carries out what is about the queue.
            remember_ms: For how long a standing is believed without a look into the database; None for ever.
        """
        self._ordered = ordered
        self._store = store
        self._trust = trust
        self._authority = authority
        self._clock = clock
        self._remember_ms = remember_ms
        self._standing: dict[bytes, tuple[int, Enrolment]] = {}

    async def by_certificate(self, certificate: bytes) -> Enrolment:
        """The member whose TLS certificate (DER) this is.

        Raises:
            IdentityError: `identity.unknown`, `identity.revoked`.
        """
        fingerprint = hashlib.sha256(certificate).digest()
        cached = self._standing.get(fingerprint)
        now_ms = self._clock()
        if cached is not None and (self._remember_ms is None or now_ms - cached[0] < self._remember_ms):
            return cached[1]

        async def read(tx: ReadTx) -> Enrolment | None:
            return await tx.enrolment_by_certificate(fingerprint)

        enrolment = await self._store.read(read)
        if enrolment is None:
            raise IdentityError(
                "identity.unknown", "this TLS certificate belongs to no member of the hub", hint="join again"
            )
        if enrolment.revoked_ms is not None:
            raise IdentityError(
                "identity.revoked",
                f"the standing of {enrolment.role} {enrolment.name!r} was ended by an administrator",
                hint="ask an administrator for a new join code",
            )
        self._standing[fingerprint] = now_ms, enrolment
        return enrolment

    async def certificate_state(self, fingerprint: bytes) -> str:
        """`standing`, `revoked` or `unknown`, for a client whose handshake ended without an answer."""

        async def read(tx: ReadTx) -> Enrolment | None:
            return await tx.enrolment_by_certificate(fingerprint)

        enrolment = await self._store.read(read)
        if enrolment is None:
            return "unknown"
        return "standing" if enrolment.revoked_ms is None else "revoked"

    async def decree(self, envelope: bytes) -> SignedStatement:
        """Carry out an authority statement.

        Raises:
            VerificationError: `authority.quorum`, `authority.hub`, `authority.expired`.
            ConflictError: `join.code_reused`.
            ConfigError: `member.unknown` for a revocation, `join.role` for an invitation; `request.unknown`,
                `request.ended`, `request.not_queued` for what is about the queue.
            MalformedInputError: `authority.misplaced` for what is about the PIN of a token.
        """
        signed = open_authority(envelope, self._trust.bundle, self._clock())
        match signed.statement:
            case Invitation():
                await self._invite(signed.statement, signed)
            case GrantStatement():
                await self._grant(signed.statement, signed, envelope)
            case Revocation():
                await self._revoke(signed.statement, signed)
            case QueueCancel() | QueueMove():
                await self._ordered(signed)
            case UnlockQuestion() | Unlock():
                raise MalformedInputError("authority.misplaced", "the PIN of a token is handed in at /v1/unlocks")
        return signed

    async def _invite(self, invitation: Invitation, signed: SignedStatement) -> None:
        if invitation.role not in ROLES:
            raise ConfigError("join.role", f"nobody can join as {invitation.role!r}; roles are {', '.join(ROLES)}")
        code = JoinCode(
            secret_sha256=bytes.fromhex(invitation.secret_sha256),
            role=invitation.role,
            name=invitation.name,
            profiles=invitation.profiles,
            expires_ms=invitation.not_after,
            statement_sha256=signed.sha256,
        )

        async def write(tx: Tx) -> None:
            await tx.add_join_code(code)

        await self._store.write(write)

    async def _grant(self, grant: GrantStatement, signed: SignedStatement, envelope: bytes) -> None:
        async def write(tx: Tx) -> None:
            entry = GrantEntry(
                ts=await tx.now_ms(),
                client=hashlib.sha256(grant.request_key).hexdigest(),
                profile=grant.profile,
                statement=signed.sha256.hex(),
                authorities=signed.authorities,
            )
            index = await tx.append(encode_entry(entry))
            await tx.add_grant(
                Grant(request_key=grant.request_key, profile=grant.profile, envelope=envelope, entry_index=index)
            )

        await self._store.write(write)

    async def _revoke(self, revocation: Revocation, signed: SignedStatement) -> None:
        async def write(tx: Tx) -> None:
            now_ms = await tx.now_ms()
            enrolment = await tx.enrolment(revocation.role, revocation.name)
            if enrolment is None:
                raise ConfigError("member.unknown", f"there is no {revocation.role} named {revocation.name!r}")
            await tx.append(encode_entry(enrol_entry(enrolment, "revoke", signed.sha256, now_ms)))
            await tx.add_enrolment(replace(enrolment, revoked_ms=now_ms))

        await self._store.write(write)
        self._standing.clear()

    async def join(self, request: JoinRequest) -> Joined:
        """Redeem a join code: certificate out, `enrol` entry in.

        Raises:
            IdentityError: `join.refused` if the code is unknown, spent or expired, `join.proof` if the request key
                is not held by the caller.
            MalformedInputError: `join.csr`.
        """
        public_key = check_csr(request.csr)
        try:
            Ed25519PublicKey.from_public_bytes(request.request_key).verify(
                request.proof, proof_message(request.secret, request.csr)
            )
        except (InvalidSignature, ValueError) as error:
            raise IdentityError("join.proof", "the caller does not show that it holds its request key") from error
        enrolment, certificate = await self._store.write(lambda tx: self._redeem(tx, request, public_key))
        self._standing.clear()  # whoever had the name before has lost it
        return Joined(
            enrolment=enrolment,
            certificate_pem=certificate.public_bytes(Encoding.PEM).decode(),
            checkpoint=self._store.head.note,
        )

    async def _redeem(
        self, tx: Tx, request: JoinRequest, public_key: ec.EllipticCurvePublicKey
    ) -> tuple[Enrolment, x509.Certificate]:
        now_ms = await tx.now_ms()
        code = await tx.take_join_code(hashlib.sha256(request.secret).digest())
        if code is None or code.expires_ms < now_ms:
            raise IdentityError(
                "join.refused",
                "the join code is unknown, was used before, or is older than its 15 minutes",
                hint="ask an administrator for a new one",
            )
        certificate = issue_member(
            self._authority.certificate,
            self._authority.key,
            public_key,
            member_uri(self._trust.bundle.hub, code.role, code.name),
            dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC),
        )
        enrolment = Enrolment(
            role=code.role,
            name=code.name,
            certificate_sha256=hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest(),
            request_key=request.request_key,
            profiles=code.profiles,
            salt=secrets.token_bytes(16),
            entry_index=await tx.log_size(),
        )
        await tx.append(encode_entry(enrol_entry(enrolment, "join", code.statement_sha256, now_ms)))
        await tx.add_enrolment(enrolment)
        return enrolment, certificate
