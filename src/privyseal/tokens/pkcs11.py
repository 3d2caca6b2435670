# SPDX-License-Identifier: Apache-2.0
"""Driver for a token behind any PKCS#11 module (PKCS#11 v3.1; DESIGN §6).

One session, one login a session. Nothing is tried again here: what failed is told, and the next call finds what the
table of remedies wants it to find. The token signs digests only: CKM_RSA_PKCS over a DigestInfo, CKM_ECDSA over the
bare digest.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import KeyCounter, KeyKind, ReaderUse, TokenInfo, TokenKey
from privyseal.tokens.card_side import CardSide
from privyseal.tokens.ckr import Ckr, Rv
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.cryptoki import Module, TokenDescription
from privyseal.tokens.cryptoki_types import SlotFlags, TokenFlags, UserType
from privyseal.tokens.driver import Progress
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import PinJournal, journal_name
from privyseal.tokens.pin_supply import PinSupply
from privyseal.tokens.pkcs11_keys import PrivateKeyObject, read_keys
from privyseal.tokens.pkcs11_make import create_certificates, generate_key_pair
from privyseal.tokens.pkcs11_pin import Pkcs11Pin
from privyseal.tokens.remedies import Remedy, remedy_for
from privyseal.tokens.scan import is_software
from privyseal.tokens.token_objects import digest_info, ecdsa_sig_value, pin_state, signature_bytes

__all__ = ["Pkcs11Driver"]

T = TypeVar("T")

_CKM_RSA_PKCS: Final = 0x0001
_CKM_ECDSA: Final = 0x1041

_SESSION_STAYS: Final = frozenset({Remedy.RETRY, Remedy.GIVE_UP})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    handle: int
    slot: int
    keys: tuple[PrivateKeyObject, ...]


def _key_of(session: _Session, key_id: bytes) -> PrivateKeyObject:
    key = next((key for key in session.keys if key.token_key.key_id == key_id), None)
    if key is None:
        raise TokenError(
            "token.key_not_found",
            f"no signing key with CKA_ID {key_id.hex() or '(empty)'} is on the token",
            hint="list the token's keys; the key may have been deleted, or its CKA_SIGN may be false",
        )
    return key


class Pkcs11Driver:
    """The `Driver` for kind `pkcs11`."""

    def __init__(self, config: TokenConfig, *, supply: PinSupply, journal: PinJournal, progress: Progress) -> None:
        self._config = config
        self._pin = Pkcs11Pin(supply=supply, journal=journal, progress=progress)
        self._journal = journal
        self._progress = progress
        self._card = CardSide(config.counter)
        self._loaded: Module | None = None
        #: False between C_Finalize and a C_Initialize that worked.
        self._is_initialized = False
        self._session: _Session | None = None
        #: Under which name the PIN journal knows the token: this worker opens no session with another one.
        self._serial = ""
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
        self._is_initialized = True

    def info(self) -> TokenInfo:
        """See `Driver.info`."""
        slot = self._slot()
        try:
            description = self._present_token(slot)
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
            pin_state=pin_state(description.flags),
            min_pin_bytes=description.min_pin_bytes,
            max_pin_bytes=description.max_pin_bytes,
        )

    def _present_token(self, slot: int) -> TokenDescription:
        """The slot list is asked first: for C_GetTokenInfo alone some modules do not look into their readers."""
        if slot not in self._module.slots():
            raise Ckr("C_GetSlotList", Rv.TOKEN_NOT_PRESENT)
        return self._module.token(slot)

    def keys(self) -> tuple[TokenKey, ...]:
        """See `Driver.keys`."""

        def read(session: _Session) -> tuple[TokenKey, ...]:
            self._session = session = self._with_keys(session)
            return tuple(key.token_key for key in session.keys)

        return self._on_session(read)

    def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        """See `Driver.sign`."""
        return self._on_session(lambda session: self._sign(session, key_id=key_id, mechanism=mechanism, digest=digest))

    def generate_key(self, *, kind: KeyKind, key_id: bytes, label: str) -> TokenKey:
        """See `Driver.generate_key`."""

        def generate(session: _Session) -> bytes:
            with self._writable(session) as handle:
                return generate_key_pair(
                    self._module, handle, kind=kind, key_id=key_id, label=label, progress=self._progress
                )

        made = self._on_session(generate)
        key = next((key for key in self.keys() if key.key_id == made), None)
        if key is None:
            raise TokenError(
                "token.failed", f"the key pair {made.hex()} was made, and the token does not show it as a signing key"
            )
        return key

    def store_certificates(self, *, key_id: bytes, chain: tuple[bytes, ...]) -> None:
        """See `Driver.store_certificates`."""

        def store(session: _Session) -> None:
            key = _key_of(session, key_id)
            with self._writable(session) as handle:
                create_certificates(self._module, handle, key=key, chain=chain, progress=self._progress)

        self._on_session(store)

    def change_pin(self, new: PinBuffer) -> None:
        """See `Driver.change_pin`."""

        def change(session: _Session) -> None:
            with self._writable(session) as handle:
                self._pin.change(self._module, handle, session.slot, new)

        # A login of now: a session may be older than what its PIN's source holds.
        self._drop_session()
        self._on_session(change)
        self._drop_session()
        self._on_session(lambda _: None)  # what the source holds now must open the token

    def counters(self) -> tuple[KeyCounter, ...]:
        """See `Driver.counters`."""
        # A module may keep the card to itself while it is logged in (OpenSC's lock_login).
        self._drop_session()
        return self._card.counters(self._module.slot_description(self._slot()))

    def reader_use(self) -> ReaderUse | None:
        """See `Driver.reader_use`."""
        return self._card.reader_use(self._module.slot_description(self._slot()))

    def probe(self, count: int) -> tuple[int, ...] | None:
        """See `Driver.probe`."""
        if not self._card.is_reached:
            return None
        # As for the counters; and a command in between could end a module's secure channel to its card.
        self._drop_session()
        return self._card.round_trips(self._module.slot_description(self._slot()), count)

    @contextlib.contextmanager
    def _writable(self, session: _Session) -> Iterator[int]:
        """A second session that may write; logged in like the first one (§5.6)."""
        handle = self._module.open_session(session.slot, writable=True)
        try:
            yield handle
        finally:
            # Its failure must not hide why it is being closed.
            with contextlib.suppress(Ckr):
                self._module.close_session(handle)

    def reinitialize(self) -> None:
        """See `Driver.reinitialize`."""
        self._drop_session()
        # A module that cannot even end what it has may still begin anew.
        with contextlib.suppress(Ckr):
            self._module.finalize()
        self._is_initialized = False
        self._initialize()

    def close(self) -> None:
        """See `Driver.close`."""
        self._drop_session()
        self._card.close()
        if self._loaded is not None:
            self._loaded.finalize()
            self._loaded = None

    # Finding the token

    def _is_hardware(self, slot: int, description: TokenDescription) -> bool:
        if is_software(description.manufacturer):
            return False
        if self._config.hardware is not None:
            return self._config.hardware
        return bool(self._module.slot_flags(slot) & SlotFlags.HW_SLOT)

    def _slot(self) -> int:
        return self._session.slot if self._session else self._find_slot()

    def _find_slot(self) -> int:
        """The slot of the configured token.

        Many modules notice readers and tokens only in C_Initialize, so an empty search is repeated once after
        C_Finalize: no session is open at this point.
        """
        if not self._is_initialized:
            self._initialize()
        found = self._matching_slots()
        if not found:
            self._module.finalize()
            self._is_initialized = False
            self._initialize()
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

    def _initialize(self) -> None:
        self._module.initialize()
        self._is_initialized = True

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
        """Run an operation; after a failure the next one has a new session, unless this one is surely good."""
        try:
            return operation(self._session or self._open_session())
        except Ckr as error:
            self._after(error)
            raise

    def _after(self, error: Ckr) -> None:
        """Leave behind what the table wants to find at the next call."""
        remedy = remedy_for(error.ckr, in_sign=error.begun)
        if error.begun or remedy not in _SESSION_STAYS:
            self._drop_session()
        if remedy is Remedy.NEVER and error.function != "C_Login" and self._serial:
            # C_Login's own refusals stand in the journal. One of another function must not lead to a login either.
            self._journal.block(self._serial)

    def _open_session(self) -> _Session:
        slot = self._find_slot()
        serial = journal_name(self._module.token(slot))
        if serial != (self._serial or serial):
            raise TokenError(
                "token.other_serial",
                f"token {serial} stands where {self._serial} was: no PIN is presented to it",
                hint="put the right token in, or name its serial in agent.toml",
            )
        self._serial = serial
        self._session = _Session(handle=self._module.open_session(slot), slot=slot, keys=())
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
        if self._module.token(session.slot).flags & TokenFlags.LOGIN_REQUIRED:
            self._accepted_pin = self._pin.login(self._module, session.handle, session.slot)

    def _with_keys(self, session: _Session) -> _Session:
        return replace(session, keys=read_keys(self._module, session.handle))

    # Signing

    def _sign(self, session: _Session, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        key = _key_of(session, key_id)
        length = signature_bytes(key.token_key.spki, mechanism)
        # Of a digest longer than the curve's order ECDSA takes the leftmost bits (FIPS 186-5 §6.4.1); some
        # modules refuse to cut it themselves.
        data = digest_info(mechanism, digest) if mechanism.is_rsa else digest[: length // 2]
        self._module.sign_init(session.handle, _CKM_RSA_PKCS if mechanism.is_rsa else _CKM_ECDSA, key.handle)
        if key.always_authenticate:
            if self._accepted_pin is None:
                raise TokenError("token.pin_missing", "the key asks for the PIN, and none was accepted before")
            self._pin.present(
                self._module, session.handle, session.slot, user_type=UserType.CONTEXT_SPECIFIC, pin=self._accepted_pin
            )
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
