# SPDX-License-Identifier: Apache-2.0
"""Key profiles out of configuration and tokens: which key, which certificates, and what stands in the way."""

import datetime as dt
import hashlib
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from privyseal.agent.check import KeyProfile
from privyseal.agent.config import KeyConfig
from privyseal.agent.counting import frozen_error
from privyseal.agent.served import ServedKey
from privyseal.agent.turns import Turns
from privyseal.errors import ConfigError, PrivysealError, TokenError
from privyseal.identity.system_roots import system_roots
from privyseal.pki.code_signing import public_ca_sign
from privyseal.ports.token import Token, TokenInfo, TokenKey
from privyseal.wire.link import ProfileAnnouncement

__all__ = ["OpenedProfile", "ProfileOpener", "SeenToken", "chain_file", "find_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedProfile:
    """A key profile as announced; `served` is None if something stands in the way."""

    announcement: ProfileAnnouncement
    served: ServedKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenToken:
    """A token that answers: what it says of itself, and its signing keys."""

    info: TokenInfo
    keys: tuple[TokenKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOpener:
    """Opens the key profiles of one token.

    Attributes:
        wanted: Those of agent.toml.
        token: Signs for them.
        turns: Of those who sign with it.
        directory: Where agent.toml is.
        roots: The roots that this system trusts; asked for only if there is a test profile.
    """

    wanted: tuple[KeyConfig, ...]
    token: Token
    turns: Turns
    directory: Path
    roots: Callable[[], tuple[bytes, ...]] = system_roots

    def served(self, seen: SeenToken, frozen: AbstractSet[str] = frozenset()) -> tuple[OpenedProfile, ...]:
        """The key profiles of a token that answers; one that fails takes no other down.

        `frozen` are keys that must not be used: SHA-256 of the SubjectPublicKeyInfo, in hex.
        """
        public_roots = self.roots() if any(key.test for key in self.wanted) else ()
        return tuple(self._opened(key, seen, public_roots, frozen) for key in self.wanted)

    def unserved(self, problem: PrivysealError) -> tuple[OpenedProfile, ...]:
        """The same of one that nobody may sign with."""
        return tuple(_unserved(key, problem, self.directory) for key in self.wanted)

    def _opened(
        self, key: KeyConfig, seen: SeenToken, public_roots: tuple[bytes, ...], frozen: AbstractSet[str]
    ) -> OpenedProfile:
        try:
            found = find_key(key, seen.keys)
            name = hashlib.sha256(found.spki).hexdigest()
            if name in frozen:
                raise frozen_error(name)
            profile = _open(key, seen.info, found, opener=self)
            _check_test(key, profile.announcement.chain, public_roots)
        except PrivysealError as error:
            return _unserved(key, error, self.directory)
        return profile


def find_key(config: KeyConfig, keys: tuple[TokenKey, ...]) -> TokenKey:
    """The one key that a key profile means.

    Raises:
        TokenError: `token.key_not_found`, `token.key_ambiguous`. ConfigError: `config.malformed`.
    """
    found = [
        key
        for key in keys
        if (not config.id or key.key_id == _key_id(config)) and (not config.label or key.label == config.label)
    ]
    if len(found) == 1:
        return found[0]
    which = f"id {config.id}" if config.id else f"label {config.label!r}" if config.label else "no id or label"
    present = ", ".join(f"id {key.key_id.hex()} ({key.label})" for key in keys) or "no signing key"
    raise TokenError(
        "token.key_not_found" if not found else "token.key_ambiguous",
        f"key profile {config.profile!r} asks for {which}; token {config.token!r} has {present}",
        hint="set `id` of the [[key]] in agent.toml to one of these",
    )


def _key_id(config: KeyConfig) -> bytes:
    try:
        return bytes.fromhex(config.id)
    except ValueError:
        raise ConfigError(
            "config.malformed",
            f"key profile {config.profile!r}: id {config.id!r} is not hex",
            hint="for example 01",
        ) from None


def chain_file(config: KeyConfig, directory: Path) -> tuple[bytes, ...]:
    """The certificates (DER) of a key profile's `chain` file.

    Raises:
        ConfigError: `file.missing`, `config.chain`.
    """
    path = directory / config.chain
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            "file.missing", f"key profile {config.profile!r}: cannot read {path}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise ConfigError(
            "config.chain", f"key profile {config.profile!r}: {path} holds no PEM certificates"
        ) from error
    return tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)


def _leaf(config: KeyConfig, chain: tuple[bytes, ...], spki: bytes) -> x509.Certificate:
    if not chain:
        raise ConfigError(
            "config.chain",
            f"key profile {config.profile!r}: the token holds no certificate for the key, and no `chain` file is set",
            hint="import the certificate to the token, or set `chain` of the [[key]] in agent.toml",
        )
    leaf = x509.load_der_x509_certificate(chain[0])
    if leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
        raise ConfigError(
            "config.chain",
            f"key profile {config.profile!r}: the first certificate ({leaf.subject.rfc4514_string()}) has another key",
            hint="put the certificate of this key first in the chain file",
        )
    return leaf


def _check_test(config: KeyConfig, chain: tuple[bytes, ...], public_roots: tuple[bytes, ...]) -> None:
    """What a test profile signs must not be believed by everybody.

    Raises:
        ConfigError: `profile.test_public`.
    """
    if config.test and (sign := public_ca_sign(chain, public_roots)):
        raise ConfigError(
            "profile.test_public",
            f"key profile {config.profile!r} is for tests, but {sign}",
            hint="remove `test` from the [[key]] in agent.toml; a company's own test root is named in `trust` of "
            "client.toml instead of the system's store",
        )


def _open(config: KeyConfig, info: TokenInfo, key: TokenKey, *, opener: ProfileOpener) -> OpenedProfile:
    chain = chain_file(config, opener.directory) if config.chain else key.certificates
    leaf = _leaf(config, chain, key.spki)
    profile = KeyProfile(
        name=config.profile,
        token=config.token,
        spki=key.spki,
        level=config.level,
        opaque=config.opaque,
        not_before_ms=_milliseconds(leaf.not_valid_before_utc),
        not_after_ms=_milliseconds(leaf.not_valid_after_utc),
        witness=config.witness,
    )
    announcement = ProfileAnnouncement(
        name=config.profile,
        token=config.token,
        chain=chain,
        level=config.level,
        opaque=config.opaque,
        token_label=info.label,
        token_serial=info.serial,
        hardware=info.hardware,
        witness=config.witness,
        test=config.test,
    )
    served = ServedKey(profile=profile, token=opener.token, key_id=key.key_id, turns=opener.turns)
    return OpenedProfile(announcement=announcement, served=served)


def _unserved(config: KeyConfig, problem: PrivysealError, directory: Path) -> OpenedProfile:
    try:
        chain = chain_file(config, directory) if config.chain else ()
    except PrivysealError:  # the problem that is announced is the first one
        chain = ()
    announcement = ProfileAnnouncement(
        name=config.profile,
        token=config.token,
        chain=chain,
        level=config.level,
        opaque=config.opaque,
        token_label=config.token,
        token_serial="",
        hardware=False,
        witness=config.witness,
        test=config.test,
        problem_code=problem.code,
        problem=problem.message,
        problem_hint=problem.hint,
    )
    return OpenedProfile(announcement=announcement, served=None)


def _milliseconds(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)
