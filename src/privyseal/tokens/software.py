# SPDX-License-Identifier: Apache-2.0
"""The software token: encrypted PKCS#8 files in a directory, with the PIN rules of a real token.

It is not hardware and says so wherever it is shown: whoever reads its files and its PIN has its keys. Layout:

    token.json       label, serial, and the keys with their public halves
    pin-check.pem    a throw-away key under the PIN, so that a PIN can be judged before there is any other key
    ID.key.pem       a private key, encrypted PKCS#8 (RFC 5958), as `openssl pkey` reads it
    ID.chain.pem     its certificates, leaf first

After its PIN was changed N times, N stands in token.json and the keys are in ID.N.key.pem and pin-check.N.pem: one
rename puts all of them in force.
"""

import secrets
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from privyseal.errors import ConfigError, TokenError
from privyseal.pki.mechanism import Mechanism, hash_algorithm
from privyseal.ports.token import KeyCounter, KeyKind, PinState, ReaderUse, TokenInfo, TokenKey
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.driver import Progress
from privyseal.tokens.files import replace_private
from privyseal.tokens.pin import MAX_PIN_BYTES, PinBuffer
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.pin_supply import PinSupply
from privyseal.tokens.token_objects import check_new_pin, free_key_id, key_taken, signature_bytes

__all__ = ["SoftwareDriver", "create_software_token", "generate_key", "set_certificates"]

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_INDEX: Final = "token.json"
_MIN_PIN_BYTES: Final = 4
_MAX_FILE_BYTES: Final = 256 * 1024
_KeyId = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2}){1,32}$")]


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    id: _KeyId
    label: str
    spki: bytes


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    version: Literal[1] = 1
    label: str
    serial: str
    keys: tuple[_Key, ...] = ()
    pin_changes: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def secret_files(self) -> tuple[str, ...]:
        """Names of the files under the PIN, the one that judges it first."""
        return (self.pin_check, *(self.key_file(key.id) for key in self.keys))

    @property
    def pin_check(self) -> str:
        """Name of the file that judges a PIN."""
        return f"pin-check{self._infix}.pem"

    def key_file(self, key_id: str) -> str:
        """Name of the file with a private key."""
        return f"{key_id}{self._infix}.key.pem"

    @property
    def _infix(self) -> str:
        return f".{self.pin_changes}" if self.pin_changes else ""


def create_software_token(directory: Path, *, pin: bytes, label: str) -> None:
    """Make an empty software token in a new or empty directory.

    Raises:
        ConfigError: `config.token` if the directory is in use or cannot be written.
        TokenError: `token.pin_missing` if the PIN is empty, `token.pin_file` if a PIN file could not hold it.
    """
    PinBuffer().fill(pin)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigError("config.token", f"{directory} is not empty; a new software token needs its own directory")
        index = _Index(label=label, serial=secrets.token_hex(8))
        replace_private(directory / index.pin_check, _encrypted(ec.generate_private_key(ec.SECP256R1()), pin))
        replace_private(directory / _INDEX, msgspec.json.encode(index))
    except OSError as error:
        raise _unwritable(directory, error) from error


def generate_key(
    directory: Path,
    *,
    pin: bytes,
    kind: KeyKind,
    key_id: bytes,
    label: str,
) -> bytes:
    """Make a key in a software token.

    Returns:
        Its SubjectPublicKeyInfo, DER.

    Raises:
        TokenError: `token.pin_incorrect` if the token's PIN is another one, `token.not_found` if there is no
            token, `token.key_exists` if the CKA_ID is taken.
        ConfigError: `config.token` if the directory cannot be written or the CKA_ID is not 1 to 32 bytes.
    """
    index = _read_index(directory)
    _decrypt(directory / index.pin_check, pin)
    if not 1 <= len(key_id) <= 32:
        raise ConfigError("config.token", "the CKA_ID of a software token's key has 1 to 32 bytes")
    if any(key.id == key_id.hex() for key in index.keys):
        raise key_taken(f"CKA_ID {key_id.hex()}")
    private_key = _new_key(kind)
    spki = _spki(private_key)
    key = _Key(id=key_id.hex(), label=label, spki=spki)
    try:
        replace_private(directory / index.key_file(key.id), _encrypted(private_key, pin))
        replace_private(
            directory / _INDEX, msgspec.json.encode(msgspec.structs.replace(index, keys=(*index.keys, key)))
        )
    except OSError as error:
        raise _unwritable(directory, error) from error
    return spki


def set_certificates(directory: Path, *, key_id: bytes, chain: tuple[bytes, ...]) -> None:
    """Put a key's certificates (DER, leaf first) into a software token, in place of those it had.

    Raises:
        TokenError: `token.not_found`, `token.key_not_found`; `token.certificate` if one cannot be read or the
            leaf is for another key.
        ConfigError: `config.token` if the directory cannot be written.
    """
    index = _read_index(directory)
    key = next((key for key in index.keys if key.id == key_id.hex()), None)
    if key is None:
        raise _no_such_key(directory, key_id)
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        leaf_spki = (
            certificates[0]
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    except (ValueError, IndexError) as error:
        raise TokenError("token.certificate", "the chain is empty or holds what is no certificate") from error
    if leaf_spki != key.spki:
        raise TokenError("token.certificate", f"the first certificate is not for the key with CKA_ID {key.id}")
    pem = b"".join(item.public_bytes(serialization.Encoding.PEM) for item in certificates)
    try:
        replace_private(directory / f"{key.id}.chain.pem", pem)
    except OSError as error:
        raise _unwritable(directory, error) from error


class SoftwareDriver:
    """The `Driver` for kind `software`."""

    def __init__(self, config: TokenConfig, *, supply: PinSupply, journal: PinJournal, progress: Progress) -> None:
        self._directory = Path(config.path)
        self._supply = supply
        self._journal = journal
        self._progress = progress
        #: Decrypted keys by CKA_ID; None while logged out. OpenSSL holds them, out of Python's reach for
        #: wiping.
        self._private: dict[str, _PrivateKey] | None = None

    def open(self) -> None:
        """See `Driver.open`: there is no module to load."""

    def info(self) -> TokenInfo:
        """See `Driver.info`."""
        index = _read_index(self._directory)
        return TokenInfo(
            label=index.label,
            serial=index.serial,
            manufacturer="Privyseal",
            model="software token (not hardware)",
            hardware=False,
            pin_state=PinState.OK,
            min_pin_bytes=_MIN_PIN_BYTES,
        )

    def keys(self) -> tuple[TokenKey, ...]:
        """See `Driver.keys`."""
        index = _read_index(self._directory)
        self._login(index)
        return tuple(
            TokenKey(
                key_id=bytes.fromhex(key.id),
                label=key.label,
                spki=key.spki,
                certificates=_read_chain(self._directory / f"{key.id}.chain.pem"),
            )
            for key in sorted(index.keys, key=lambda key: bytes.fromhex(key.id))
        )

    def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        """See `Driver.sign`."""
        private_key = self._login(_read_index(self._directory)).get(key_id.hex())
        if private_key is None:
            raise _no_such_key(self._directory, key_id)
        signature_bytes(_spki(private_key), mechanism)
        self._progress("C_Sign")
        algorithm = Prehashed(hash_algorithm(mechanism.digest_algorithm))
        if isinstance(private_key, rsa.RSAPrivateKey):
            return private_key.sign(digest, padding.PKCS1v15(), algorithm)
        return private_key.sign(digest, ec.ECDSA(algorithm))

    def generate_key(self, *, kind: KeyKind, key_id: bytes, label: str) -> TokenKey:
        """See `Driver.generate_key`."""
        index = _read_index(self._directory)
        self._private = None  # the PIN is needed once more, and judged first
        self._login(index)
        if any(key.label == label for key in index.keys):
            raise key_taken(f"the label {label!r}")
        key_id = key_id or free_key_id(lambda candidate: any(key.id == candidate.hex() for key in index.keys))
        try:
            with self._supply.pin(self._journal.history(index.serial)) as pin:
                self._progress("C_GenerateKeyPair")
                spki = generate_key(self._directory, pin=bytes(pin.view), kind=kind, key_id=key_id, label=label)
        except ConfigError as error:
            raise TokenError("token.failed", error.message, hint=error.hint) from error
        return TokenKey(key_id=key_id, label=label, spki=spki, certificates=())

    def store_certificates(self, *, key_id: bytes, chain: tuple[bytes, ...]) -> None:
        """See `Driver.store_certificates`."""
        self._login(_read_index(self._directory))
        try:
            set_certificates(self._directory, key_id=key_id, chain=chain)
        except ConfigError as error:
            raise TokenError("token.failed", error.message, hint=error.hint) from error

    def reinitialize(self) -> None:
        """See `Driver.reinitialize`: keys are decrypted anew."""
        self._private = None

    def counters(self) -> tuple[KeyCounter, ...]:
        """None: a counter in a file could be set back by whoever used the key."""
        return ()

    def reader_use(self) -> ReaderUse | None:
        """Nobody can tell who else reads the files."""
        return None

    def probe(self, count: int) -> tuple[int, ...] | None:  # noqa: ARG002 - the port's
        """There is no card."""
        return None

    def change_pin(self, new: PinBuffer) -> None:
        """See `Driver.change_pin`."""
        index = _read_index(self._directory)
        self._private = None  # a login of now, with what the PIN's source holds
        self._login(index)
        check_new_pin(new, _MIN_PIN_BYTES, MAX_PIN_BYTES)
        with self._supply.pin(self._journal.history(index.serial)) as old:
            state = PinState.OK
            with self._journal.attempt(serial=index.serial, pin=old, pin_state=state, new=new) as attempt:
                self._supply.prepare(new)
                self._progress("C_SetPIN")
                _put_under(self._directory, index, bytes(old.view), bytes(new.view))
                attempt.conclude("changed")
                self._supply.adopt(new)
        self._private = None
        self._login(_read_index(self._directory))

    def close(self) -> None:
        """See `Driver.close`."""
        self._private = None

    def _login(self, index: _Index) -> dict[str, _PrivateKey]:
        if self._private is not None and self._private.keys() == {key.id for key in index.keys}:
            return self._private
        with self._supply.pin(self._journal.history(index.serial)) as pin:
            with self._journal.attempt(serial=index.serial, pin=pin, pin_state=PinState.OK) as attempt:
                self._progress("C_Login")
                secret = bytes(pin.view)  # cryptography takes nothing else; freed, not wiped
                try:
                    _decrypt(self._directory / index.pin_check, secret)
                except TokenError as error:
                    attempt.conclude("refused" if error.code == "token.pin_incorrect" else "not-judged")
                    raise
                attempt.conclude("accepted")
                self._supply.accepted()
            self._private = {key.id: _decrypt(self._directory / index.key_file(key.id), secret) for key in index.keys}
        return self._private


def _put_under(directory: Path, index: _Index, old: bytes, new: bytes) -> None:
    """Encrypt everything once more, under another PIN; the index says when that is in force.

    Raises:
        TokenError: `token.failed` if the directory cannot be written; the PIN may have been changed all the same.
    """
    changed = msgspec.structs.replace(index, pin_changes=index.pin_changes + 1)
    try:
        for source, target in zip(index.secret_files, changed.secret_files, strict=True):
            replace_private(directory / target, _encrypted(_decrypt(directory / source, old), new))
        replace_private(directory / _INDEX, msgspec.json.encode(changed))
        for name in index.secret_files:
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise TokenError("token.failed", _unwritable(directory, error).message) from error


def _new_key(kind: KeyKind) -> _PrivateKey:
    match kind:
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "rsa2048" | "rsa3072" | "rsa4096":
            return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("rsa")))


def _spki(private_key: _PrivateKey) -> bytes:
    return private_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _encrypted(private_key: _PrivateKey, pin: bytes) -> bytes:
    return private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(pin),
    )


def _decrypt(path: Path, pin: bytes) -> _PrivateKey:
    """A private key file under the PIN. Damage to a file and a wrong PIN look the same to the decryption."""
    pem = _read(path)
    try:
        private_key = serialization.load_pem_private_key(pem, pin)
    except (ValueError, TypeError) as error:
        raise TokenError(
            "token.pin_incorrect",
            f"{path} does not open with this PIN",
            hint="put the right PIN in place, then: privyseal token unlock NAME --dir DIR",
        ) from error
    if not isinstance(private_key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise TokenError("token.failed", f"{path} holds a key that is neither RSA nor ECDSA")
    return private_key


def _read_index(directory: Path) -> _Index:
    path = directory / _INDEX
    try:
        return msgspec.json.decode(_read(path), type=_Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TokenError("token.not_found", f"{path} is not the index of a software token: {error}") from error


def _read_chain(path: Path) -> tuple[bytes, ...]:
    if not path.exists():
        return ()
    try:
        certificates = x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise TokenError("token.certificate", f"{path} holds what is no certificate") from error
    return tuple(item.public_bytes(serialization.Encoding.DER) for item in certificates)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise TokenError(
            "token.not_found",
            f"software token: {path} cannot be read: {error.strerror}",
            hint="check the token's `path`; `privyseal up` makes a software token",
        ) from error
    if len(data) > _MAX_FILE_BYTES:
        raise TokenError("token.not_found", f"software token: {path} is longer than {_MAX_FILE_BYTES} bytes")
    return data


def _no_such_key(directory: Path, key_id: bytes) -> TokenError:
    return TokenError(
        "token.key_not_found",
        f"software token {directory} has no key with CKA_ID {key_id.hex() or '(empty)'}",
        hint="list the token's keys",
    )


def _unwritable(directory: Path, error: OSError) -> ConfigError:
    return ConfigError("config.token", f"software token {directory} cannot be written: {error.strerror}")
