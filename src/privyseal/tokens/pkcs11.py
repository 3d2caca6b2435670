# SPDX-License-Identifier: Apache-2.0
"""Driver for a token behind any PKCS#11 module (PKCS#11 v3.1; DESIGN §6).

One session, one login a session. Before C_Sign a lost session is opened once more; from C_Sign on nothing is
tried again. The token signs digests only: CKM_RSA_PKCS over a DigestInfo, CKM_ECDSA over the bare digest.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import PinState, TokenInfo, TokenKey
from privyseal.tokens.ckr import Ckr, Rv
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.cryptoki import (
    Attribute,
    Module,
    SlotFlags,
    TokenDescription,
    TokenFlags,
    UserType,
    ulong,
)
from privyseal.tokens.driver import Progress
from privyseal.tokens.pin import PinBuffer, PinSupply
from privyseal.tokens.pin_journal import Outcome, PinJournal
from privyseal.tokens.token_objects import (
    TokenCertificate,
    chain_for,
    digest_info,
    ec_spki,
    ecdsa_sig_value,
    read_certificate,
    rsa_spki,
    signature_bytes,
)

__all__ = ["Pkcs11Driver"]

T = TypeVar("T")

_CKO_CERTIFICATE: Final = 1
_CKO_PUBLIC_KEY: Final = 2
_CKO_PRIVATE_KEY: Final = 3
_CKK_RSA: Final = 0
_CKK_EC: Final = 3
_CKM_RSA_PKCS: Final = 0x0001
_CKM_ECDSA: Final = 0x1041

#: What C_Login's refusals say of the PIN. What is not named leaves its outcome unknown: the token may have
#: counted.
_LOGIN_OUTCOMES: Final[dict[int, Outcome]] = {
    Rv.PIN_INCORRECT: "refused",
    Rv.PIN_INVALID: "refused",
    Rv.PIN_LEN_RANGE: "refused",
    Rv.PIN_EXPIRED: "refused",
    Rv.PIN_LOCKED: "refused",
    # These tell of something that was already so when the function was invoked (§5.1), before it saw a PIN.
    Rv.USER_ALREADY_LOGGED_IN: "not-judged",
    Rv.SESSION_HANDLE_INVALID: "not-judged",
    Rv.TOKEN_NOT_PRESENT: "not-judged",
    Rv.CRYPTOKI_NOT_INITIALIZED: "not-judged",
    Rv.ARGUMENTS_BAD: "not-judged",
    Rv.FUNCTION_NOT_SUPPORTED: "not-judged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _PrivateKey:
    handle: int
    token_key: TokenKey
    always_authenticate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    handle: int
    slot: int
    keys: tuple[_PrivateKey, ...]


def _pin_state(flags: int) -> PinState:
    if flags & TokenFlags.USER_PIN_LOCKED:
        return PinState.LOCKED
    if flags & TokenFlags.USER_PIN_FINAL_TRY:
        return PinState.FINAL_TRY
    if flags & TokenFlags.USER_PIN_COUNT_LOW:
        return PinState.COUNT_LOW
    return PinState.OK


class Pkcs11Driver:
    """The `Driver` for kind `pkcs11`."""

    def __init__(self, config: TokenConfig, *, supply: PinSupply, journal: PinJournal, progress: Progress) -> None:
        self._config = config
        self._supply = supply
        self._journal = journal
        self._progress = progress
        self._loaded: Module | None = None
        self._session: _Session | None = None
        #: Held only while a key asks for the PIN at each signature (CKA_ALWAYS_AUTHENTICATE).
        self._accepted_pin: PinBuffer | None = None

    @property
    def _module(self) -> Module:
        if self._loaded is None:
            raise TokenError("token.module", "the module is not loaded")
        return self._loaded

    def open(self) -> None:
        """See `Driver.open`."""
        module = Module(self._config.module)
        module.initialize()
        self._loaded = module

    def info(self) -> TokenInfo:
        """See `Driver.info`."""
        slot = self._session.slot if self._session else self._find_slot()
        try:
            description = self._module.token(slot)
        except Ckr:
            # Unplugged, perhaps in another slot by now: the next look starts from the slot list.
            self._drop_session()
            raise
        return TokenInfo(
            label=description.label,
            serial=description.serial,
            manufacturer=description.manufacturer,
            model=description.model,
            hardware=self._is_hardware(slot, description),
            pin_state=_pin_state(description.flags),
        )

    def keys(self) -> tuple[TokenKey, ...]:
        """See `Driver.keys`."""

        def read(session: _Session) -> tuple[TokenKey, ...]:
            self._session = session = self._with_keys(session)
            return tuple(key.token_key for key in session.keys)

        return self._on_session(read)

    def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        """See `Driver.sign`."""
        return self._on_session(lambda session: self._sign(session, key_id=key_id, mechanism=mechanism, digest=digest))

    def close(self) -> None:
        """See `Driver.close`."""
        self._drop_session()
        if self._loaded is not None:
            self._loaded.finalize()
            self._loaded = None

    # Finding the token

    def _is_hardware(self, slot: int, description: TokenDescription) -> bool:
        if description.manufacturer.startswith("SoftHSM"):
            return False
        if self._config.hardware is not None:
            return self._config.hardware
        return bool(self._module.slot_flags(slot) & SlotFlags.HW_SLOT)

    def _find_slot(self) -> int:
        """The slot of the configured token.

        Many modules notice readers and tokens only in C_Initialize, so an empty search is repeated once after
        C_Finalize: no session is open at this point.
        """
        found = self._matching_slots()
        if not found:
            self._module.finalize()
            self._module.initialize()
            found = self._matching_slots()
        if not found:
            raise TokenError(
                "token.not_found",
                f"{self._config.module} shows no token that is {self._wanted()}",
                hint="check that the token is plugged in and its label, serial or slot in the configuration",
            )
        if len(found) > 1:
            raise TokenError(
                "token.ambiguous",
                f"{self._config.module} shows {len(found)} tokens that are {self._wanted()}",
                hint="name the token by its serial",
            )
        return found[0]

    def _wanted(self) -> str:
        config = self._config
        words = [
            f"labelled {config.token_label!r}" if config.token_label else "",
            f"of serial {config.serial!r}" if config.serial else "",
            f"in slot {config.slot}" if config.slot is not None else "",
        ]
        return " and ".join(word for word in words if word) or "initialised"

    def _matching_slots(self) -> list[int]:
        config = self._config
        named = bool(config.token_label or config.serial or config.slot is not None)
        found = []
        for slot in self._module.slots():
            if config.slot not in (None, slot):
                continue
            try:
                description = self._module.token(slot)
            except Ckr as error:
                # An empty or foreign reader beside the token is none of our business.
                if error.code == "token.not_found":
                    continue
                raise
            if config.token_label not in ("", description.label):
                continue
            if config.serial not in ("", description.serial):
                continue
            if named or description.flags & TokenFlags.TOKEN_INITIALIZED:
                found.append(slot)
        return found

    # Sessions and the PIN

    def _on_session(self, operation: Callable[[_Session], T]) -> T:
        """Run an operation; if the session was lost before C_Sign, once more on a fresh one."""
        for is_last in (False, True):
            try:
                return operation(self._session or self._open_session())
            except Ckr as error:
                self._drop_session()
                if is_last or error.begun or error.code != "token.session_lost":
                    raise
        raise AssertionError("unreachable: the second turn returns or raises")

    def _open_session(self) -> _Session:
        slot = self._find_slot()
        handle = self._module.open_session(slot)
        self._session = _Session(handle=handle, slot=slot, keys=())
        try:
            self._login(self._session)
            self._session = self._with_keys(self._session)
        except TokenError:
            self._drop_session()
            raise
        if self._accepted_pin and not any(key.always_authenticate for key in self._session.keys):
            self._accepted_pin.wipe()
            self._accepted_pin = None
        return self._session

    def _drop_session(self) -> None:
        if self._accepted_pin is not None:
            self._accepted_pin.wipe()
            self._accepted_pin = None
        if self._session is not None:
            handle, self._session = self._session.handle, None
            # A session that is lost anyway often cannot be closed; that must not hide why it is being closed.
            with contextlib.suppress(Ckr):
                self._module.close_session(handle)

    def _login(self, session: _Session) -> None:
        if not self._module.token(session.slot).flags & TokenFlags.LOGIN_REQUIRED:
            return
        with self._supply.pin() as pin:
            if self._present(session, UserType.USER, pin):
                self._accepted_pin = pin.copy()

    def _present(self, session: _Session, user_type: int, pin: PinBuffer) -> bool:
        """C_Login, journalled (DESIGN promise 5). False if the token was logged in and looked at no PIN."""
        description = self._module.token(session.slot)
        with self._journal.attempt(
            serial=description.serial or description.label,
            pin=pin,
            pin_state=_pin_state(description.flags),
        ) as attempt:
            self._progress("C_Login")
            try:
                self._module.login(session.handle, user_type, pin.address, len(pin))
            except Ckr as error:
                outcome = _LOGIN_OUTCOMES.get(error.ckr)
                if outcome is not None:
                    attempt.conclude(outcome)
                if error.ckr == Rv.USER_ALREADY_LOGGED_IN:
                    return False
                raise
            attempt.conclude("accepted")
            return True

    # Keys

    def _with_keys(self, session: _Session) -> _Session:
        private = self._module.find(
            session.handle,
            (Attribute.CLASS, ulong(_CKO_PRIVATE_KEY)),
            (Attribute.SIGN, b"\x01"),
        )
        certificates = self._certificates(session.handle)
        keys = [self._read_key(session.handle, handle, certificates) for handle in private]
        known = sorted((key for key in keys if key), key=lambda key: key.token_key.key_id)
        return _Session(handle=session.handle, slot=session.slot, keys=tuple(known))

    def _certificates(self, session: int) -> tuple[TokenCertificate, ...]:
        certificates = []
        for handle in self._module.find(session, (Attribute.CLASS, ulong(_CKO_CERTIFICATE))):
            value = self._module.attribute(session, handle, Attribute.VALUE)
            key_id = self._module.attribute(session, handle, Attribute.ID)
            if value and (certificate := read_certificate(key_id or b"", value)):
                certificates.append(certificate)
        return tuple(certificates)

    def _read_key(self, session: int, handle: int, certificates: tuple[TokenCertificate, ...]) -> _PrivateKey | None:
        """A private key with its public key and chain; None if the token shows no public key for it."""
        key_id = self._module.attribute(session, handle, Attribute.ID) or b""
        spki = self._public_key(session, handle, key_id)
        chain = chain_for(key_id=key_id, spki=spki, certificates=certificates)
        if spki is None:
            if not chain:
                return None
            spki = chain[0].spki
        label = self._module.attribute(session, handle, Attribute.LABEL) or b""
        always = self._module.attribute(session, handle, Attribute.ALWAYS_AUTHENTICATE)
        return _PrivateKey(
            handle=handle,
            token_key=TokenKey(
                key_id=key_id,
                label=label.decode("utf-8", errors="replace"),
                spki=spki,
                certificates=tuple(item.der for item in chain),
            ),
            always_authenticate=always == b"\x01",
        )

    def _public_key(self, session: int, handle: int, key_id: bytes) -> bytes | None:
        """From the private key's own attributes, or from the public key object with the same CKA_ID."""
        kind = self._module.attribute(session, handle, Attribute.KEY_TYPE)
        build: Callable[[bytes | None, bytes | None], bytes | None]
        names: tuple[int, int]
        if kind == ulong(_CKK_RSA):
            build, names = rsa_spki, (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
        elif kind == ulong(_CKK_EC):
            build, names = ec_spki, (Attribute.EC_PARAMS, Attribute.EC_POINT)
        else:
            return None
        holders = [handle]
        if key_id:
            holders += self._module.find(session, (Attribute.CLASS, ulong(_CKO_PUBLIC_KEY)), (Attribute.ID, key_id))
        for holder in holders:
            first, second = (self._module.attribute(session, holder, name) for name in names)
            if spki := build(first, second):
                return spki
        return None

    # Signing

    def _sign(self, session: _Session, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        key = next((key for key in session.keys if key.token_key.key_id == key_id), None)
        if key is None:
            raise TokenError(
                "token.key_not_found",
                f"no signing key with CKA_ID {key_id.hex() or '(empty)'} is on the token",
                hint="list the token's keys; the key may have been deleted, or its CKA_SIGN may be false",
            )
        length = signature_bytes(key.token_key.spki, mechanism)
        # Of a digest longer than the curve's order ECDSA takes the leftmost bits (FIPS 186-5 §6.4.1); some
        # modules refuse to cut it themselves.
        data = digest_info(mechanism, digest) if mechanism.is_rsa else digest[: length // 2]
        self._module.sign_init(session.handle, _CKM_RSA_PKCS if mechanism.is_rsa else _CKM_ECDSA, key.handle)
        if key.always_authenticate:
            if self._accepted_pin is None:
                raise TokenError("token.pin_missing", "the key asks for the PIN, and none was accepted before")
            self._present(session, UserType.CONTEXT_SPECIFIC, self._accepted_pin)
        self._progress("C_Sign")
        raw = self._module.sign(session.handle, data)
        if len(raw) != length:
            raise TokenError(
                "token.failed",
                f"C_Sign gave {len(raw)} bytes where this key's signatures have {length}",
                function="C_Sign",
                begun=True,
            )
        return raw if mechanism.is_rsa else ecdsa_sig_value(raw)
