# SPDX-License-Identifier: Apache-2.0
"""From a key on a token to the certificate beside it: making the key, request, import, test certificate."""

import asyncio
import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privyseal.agent.appending import tables_text
from privyseal.agent.config import KeyConfig, load_agent_config
from privyseal.cli.token_host import choose_key, named_token, opened, parse_key_id
from privyseal.errors import ConfigError, MalformedInputError, TokenError
from privyseal.identity.keyfile import write_public
from privyseal.identity.system_roots import system_roots
from privyseal.pki.code_signing import CheckedChain, check_chain
from privyseal.pki.mechanism import Mechanism
from privyseal.pki.remote_key import remote_key
from privyseal.pki.request import certification_request, parse_subject
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.token import KeyKind, TokenKey
from privyseal.tokens.supervisor import WorkerToken
from privyseal.tokens.testca import ROOT_NAME, make_test_ca

__all__ = [
    "KINDS",
    "Stored",
    "generate_key",
    "import_certificates",
    "make_request",
    "make_test_certificate",
    "profile_lines",
]

#: Kinds of keys as the command line names them.
KINDS: Final[dict[str, KeyKind]] = {
    "rsa-2048": "rsa2048",
    "rsa-3072": "rsa3072",
    "rsa-4096": "rsa4096",
    "ec-p256": "p256",
    "ec-p384": "p384",
}
_MAX_FILE_BYTES: Final = 1024 * 1024
_MAX_LABEL: Final = 64
_TEST_DAYS: Final = 460
#: A real certificate, issued later, must not be older than the test certificate: the newest one is used.
_BACKDATED: Final = dt.timedelta(days=2)
_WRITES: Final = frozenset({"C_CreateObject", "C_OpenSession"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Certificates that stand beside a key now.

    Attributes:
        chain_file: Where they are if the token did not take them; None if it did.
        reason: Why it did not.
    """

    key: TokenKey
    chain: tuple[bytes, ...]
    remarks: tuple[str, ...] = ()
    chain_file: Path | None = None
    reason: str = ""


def generate_key(directory: Path, token: str, *, kind: KeyKind, key_id: str, label: str) -> TokenKey:
    """Make a key pair on a token.

    Raises:
        ConfigError: `usage.label`; TokenError: as `ManagedToken.generate_key`.
    """
    if not 1 <= len(label) <= _MAX_LABEL or not label.isprintable():
        raise ConfigError("usage.label", f"a label has 1 to {_MAX_LABEL} printable characters; this one is {label!r}")

    async def generate() -> TokenKey:
        async with opened(directory, token) as opened_token:
            return await opened_token.generate_key(kind=kind, key_id=parse_key_id(key_id), label=label)

    return asyncio.run(generate())


def make_request(directory: Path, token: str, *, key_id: str, subject: str) -> bytes:
    """A certification request, PEM, signed by the key on the token."""
    name = parse_subject(subject)

    async def request() -> bytes:
        async with opened(directory, token) as opened_token:
            key = choose_key(await opened_token.keys(), parse_key_id(key_id))
            loop = asyncio.get_running_loop()

            def sign(mechanism: Mechanism, digest: bytes) -> bytes:
                signing = opened_token.sign(key_id=key.key_id, mechanism=mechanism, digest=digest)
                return asyncio.run_coroutine_threadsafe(signing, loop).result()

            # The builder signs synchronously, so it waits in a thread of its own.
            return await asyncio.to_thread(certification_request, name, remote_key(key.spki, sign))

    return asyncio.run(request())


def import_certificates(directory: Path, token: str, *, key_id: str, files: tuple[Path, ...]) -> Stored:
    """Check certificates and put them beside their key: on the token, or else into a chain file.

    Raises:
        MalformedInputError: `certificate.malformed`; VerificationError: as `check_chain`.
    """
    given = tuple(encoded for path in files for encoded in _read_certificates(path))

    async def store() -> Stored:
        async with opened(directory, token) as opened_token:
            key = choose_key(await opened_token.keys(), parse_key_id(key_id))
            checked = check_chain(given, spki=key.spki, roots=system_roots(), at=dt.datetime.now(dt.UTC))
            return await _store(
                opened_token,
                key,
                _own_part(checked, given),
                directory=directory,
                token=token,
                remarks=checked.remarks,
            )

    return asyncio.run(store())


def make_test_certificate(directory: Path, token: str, *, key_id: str, name: str, root: Path) -> Stored:
    """Have a test root, made for this and thrown away, certify a key; the root goes into the file `root`.

    Raises:
        ConfigError: `key.certified` if the key has a certificate that is no test; `file.exists`.
    """
    if root.exists():
        raise ConfigError("file.exists", f"{root} is there already", hint="name another file with --root")

    async def certify() -> Stored:
        async with opened(directory, token) as opened_token:
            key = choose_key(await opened_token.keys(), parse_key_id(key_id))
            _check_is_free(key)
            begin = dt.datetime.now(dt.UTC) - _BACKDATED
            ca = make_test_ca(not_before=begin, not_after=begin + dt.timedelta(days=3650))
            chain = ca.issue_code_signing(
                spki=key.spki, common_name=name, not_before=begin, not_after=begin + dt.timedelta(days=_TEST_DAYS)
            )
            stored = await _store(opened_token, key, chain, directory=directory, token=token)
            write_public(root, _pem(chain[-1:]))
            return stored

    return asyncio.run(certify())


def profile_lines(directory: Path, token: str, key: TokenKey, *, test: bool = False, chain: str = "") -> Iterable[str]:
    """What agent.toml still needs so that the key is served."""
    name = named_token(directory, token).name
    mine = [one for one in load_agent_config(directory).key if one.token == name and _names(one, key)]
    for profile in mine:
        wanted = [f'chain = "{chain}"'] if chain and profile.chain != chain else []
        wanted += ["test = true"] if test and not profile.test else []
        if not chain and profile.chain:
            wanted.append(f'no `chain`, which is now "{profile.chain}" and counts instead of the token\'s certificates')
        if wanted:
            yield f"next: the [[key]] of profile {profile.profile} in agent.toml needs: {', '.join(wanted)}"
    if not mine:
        yield "next: to serve the key, append this to agent.toml, with a name of your own:"
        table = KeyConfig(profile="my-profile", token=name, id=key.key_id.hex(), chain=chain, test=test)
        yield from ("", *tables_text(keys=(table,)).splitlines(), "")
    yield f"then restart the agent: privyseal agent run --dir {directory}"


def _names(profile: KeyConfig, key: TokenKey) -> bool:
    return profile.id.lower() in ("", key.key_id.hex()) and profile.label in ("", key.label)


async def _store(
    opened_token: WorkerToken,
    key: TokenKey,
    chain: tuple[bytes, ...],
    *,
    directory: Path,
    token: str,
    remarks: tuple[str, ...] = (),
) -> Stored:
    reason = ""
    try:
        await opened_token.store_certificates(key_id=key.key_id, chain=chain)
        now = choose_key(await opened_token.keys(), key.key_id).certificates
        if now[:1] != chain[:1]:
            shown = parse_certificate(now[0]).subject if now else "none"
            reason = f"the token took it, but shows another certificate for the key: {shown}"
    except TokenError as error:
        if error.function not in _WRITES or error.ckr is None:
            raise
        reason = error.message
    if not reason:
        return Stored(key=key, chain=chain, remarks=remarks)
    path = directory / f"{named_token(directory, token).name}-{key.key_id.hex()}.chain.pem"
    write_public(path, _pem(chain))
    return Stored(key=key, chain=chain, remarks=remarks, chain_file=path, reason=reason)


def _own_part(checked: CheckedChain, given: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The chain without a root that only the system brought."""
    return tuple(one.der for one in checked.certificates if one.der in given)


def _check_is_free(key: TokenKey) -> None:
    if not key.certificates:
        return
    leaf = x509.load_der_x509_certificate(key.certificates[0])
    if leaf.issuer.rfc4514_string() != f"CN={ROOT_NAME}":
        raise ConfigError(
            "key.certified",
            f"key {key.key_id.hex()} has a certificate: {leaf.subject.rfc4514_string()}",
            hint="make a test certificate for a key that has none: privyseal key generate",
        )


def _pem(chain: tuple[bytes, ...]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in chain)


def _read_certificates(path: Path) -> tuple[bytes, ...]:
    """The certificates of a file: PEM, any number of them, or one DER."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError("file.missing", f"cannot read {path}: {error.strerror}") from error
    if b"-----BEGIN " not in data:
        return (parse_certificate(data).der,)
    try:
        found = x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise MalformedInputError(
            "certificate.malformed",
            f"{path} holds no PEM certificates",
            hint="a .p7b file is taken apart with: openssl pkcs7 -print_certs",
        ) from error
    return tuple(one.public_bytes(Encoding.DER) for one in found)
