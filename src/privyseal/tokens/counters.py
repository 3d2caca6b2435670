# SPDX-License-Identifier: Apache-2.0
"""Signature counters that cards keep themselves, read beside the module (OpenPGP card 3.4.1; SmartCard-HSM).

The application that the module has selected stays selected, and its PIN verified: it is selected here only if the card
does not answer, and then the module has not logged in to it either.
"""

from collections.abc import Callable
from typing import Final, Literal, Protocol

from privyseal.errors import MalformedInputError, TokenError
from privyseal.pki.der import Tlv, children, read_single
from privyseal.ports.token import KeyCounter
from privyseal.tokens.pcsc import Answer

__all__ = ["CounterKind", "read_counters"]

#: How a token's counters are read.
CounterKind = Literal["none", "openpgp", "smartcard-hsm"]

_SECURITY_TEMPLATE: Final = 0x7A
_SIGNATURE_COUNTER: Final = 0x93
_GET_SECURITY_TEMPLATE: Final = bytes.fromhex("00ca007a00")
_GET_SIGNATURE_COUNTER: Final = bytes.fromhex("00ca009300")
_SELECT_OPENPGP: Final = bytes.fromhex("00a4040006d2760001240100")
#: The signature key is the first one: OpenSC and its kin give it this CKA_ID.
_OPENPGP_SIGNATURE_KEY: Final = b"\x01"

_SELECT_SC_HSM: Final = bytes.fromhex("00a404040be82b0601040181c31f020100")
_ENUMERATE: Final = bytes.fromhex("80580000000000")
_KEY_FILES: Final = 0xCC
_DESCRIPTION_FILES: Final = 0xC4
_FILE_CONTROL: Final = 0x62
_PROPRIETARY: Final = 0xA5
_USES_LEFT: Final = 0x90
_MOST_USES: Final = 0xFFFF_FFFF
_OCTET_STRING: Final = 0x04


class _Asked(Protocol):
    def ask(self, command: bytes) -> Answer:
        """Send a command APDU."""
        ...


def read_counters(card: _Asked, kind: CounterKind) -> tuple[KeyCounter, ...]:
    """The counters of a card's keys.

    Args:
        card: Nobody else speaks to it meanwhile.
        kind: How it is read.

    Raises:
        TokenError: `token.counter` if the card has none of this kind; what `Card.ask` raises.
    """
    readers: dict[CounterKind, Callable[[_Asked], tuple[KeyCounter, ...]]] = {
        "none": lambda _: (),
        "openpgp": _openpgp,
        "smartcard-hsm": _smartcard_hsm,
    }
    try:
        return readers[kind](card)
    except MalformedInputError as error:
        raise _no_counter(f"the card's answer cannot be read: {error.message}") from error


# OpenPGP card: one counter, in DO 93, for the signature key alone (§4.3.3.6 and PSO: COMPUTE DIGITAL SIGNATURE)


def _openpgp(card: _Asked) -> tuple[KeyCounter, ...]:
    value = _signature_counter(card)
    if value is None and card.ask(_SELECT_OPENPGP).is_ok:
        value = _signature_counter(card)
    if value is None:
        raise _no_counter("the card has no signature counter in DO 93")
    count = int.from_bytes(value, "big")
    return (KeyCounter(key_id=_OPENPGP_SIGNATURE_KEY, count=count, source="OpenPGP card, DO 93"),)


def _signature_counter(card: _Asked) -> bytes | None:
    """Three bytes; None if the card shows none."""
    template = card.ask(_GET_SECURITY_TEMPLATE)
    if template.is_ok:
        value = _only(_inside(template.data, _SECURITY_TEMPLATE, "DO 7A"), _SIGNATURE_COUNTER)
        return value if value is not None and len(value) == 3 else None
    counter = card.ask(_GET_SIGNATURE_COUNTER)
    return counter.data if counter.is_ok and len(counter.data) == 3 else None


# SmartCard-HSM: each key counts down from what was allowed when it was made; a key made without that has no counter


def _smartcard_hsm(card: _Asked) -> tuple[KeyCounter, ...]:
    files = card.ask(_ENUMERATE)
    if not files.is_ok and card.ask(_SELECT_SC_HSM).is_ok:
        files = card.ask(_ENUMERATE)
    if not files.is_ok:
        raise _no_counter(f"the card lists no files: it answers {files.sw:04X}")
    numbers = [second for first, second in zip(files.data[::2], files.data[1::2], strict=False) if first == _KEY_FILES]
    # Number 0 is the device's own key, which signs no data of ours.
    found = tuple(counter for number in numbers if number and (counter := _uses(card, number)) is not None)
    if not found:
        raise _no_counter(f"none of the card's {len(numbers)} keys was made with a use counter")
    return found


def _uses(card: _Asked, number: int) -> KeyCounter | None:
    selected = card.ask(bytes((0x00, 0xA4, 0x00, 0x00, 0x02, _KEY_FILES, number, 0x00)))
    if not selected.is_ok:
        return None
    control = _inside(selected.data, _FILE_CONTROL, "file control parameters")
    proprietary = next((one for one in control if one.tag == _PROPRIETARY), None)
    left = _only(children(proprietary, "DO A5") if proprietary else control, _USES_LEFT)
    if left is None or len(left) != 4:
        return None
    count = _MOST_USES - int.from_bytes(left, "big")
    return KeyCounter(key_id=_key_id(card, number), count=count, source="SmartCard-HSM, key use counter")


def _key_id(card: _Asked, number: int) -> bytes:
    """CKA_ID, from the key's description (PKCS#15 PrivateKeyType: its second element begins with it)."""
    description = card.ask(bytes((0x00, 0xB1, _DESCRIPTION_FILES, number, 0x04, 0x54, 0x02, 0x00, 0x00, 0x00)))
    if not description.is_ok:
        raise _no_counter(f"the description of key {number} cannot be read: the card answers {description.sw:04X}")
    parts = children(read_single(description.data, "key description"), "key description")
    identifier = _only(children(parts[1], "key description"), _OCTET_STRING) if len(parts) > 1 else None
    if identifier is None:
        raise _no_counter(f"the description of key {number} holds no identifier")
    return identifier


def _inside(data: bytes, tag: int, what: str) -> tuple[Tlv, ...]:
    outer = read_single(data, what)
    if outer.tag != tag:
        raise _no_counter(f"{what} begins with tag {outer.tag:02X}")
    return children(outer, what)


def _only(values: tuple[Tlv, ...], tag: int) -> bytes | None:
    return next((one.content for one in values if one.tag == tag), None)


def _no_counter(what: str) -> TokenError:
    return TokenError(
        "token.counter",
        what,
        hint='set `counter = "none"` in the [[token]] of agent.toml if the token has none; see docs/custody.md',
    )
