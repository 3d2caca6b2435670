# SPDX-License-Identifier: Apache-2.0
"""What a command does to a card, by a declared table; and what a status says about how it ended.

In doubt a command counts as what it may be: an authentication template that cannot be read is a private-key
operation, a command that stands in no row makes the lease unproven.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from privyseal.usbip.apdu import Head, template_lengths
from privyseal.usbip.card_events import Blind, KeyUse, Outcome, PinOutcome, PinVerification, Write

__all__ = ["TABLE", "Act", "Meaning", "Row", "meaning", "outcome", "pin_verification"]


class Act(StrEnum):
    """What the audit does with a command."""

    KEY_OPERATION = "key-operation"
    VERIFY = "verify"
    PIN_CHANGE = "pin-change"
    KEY_GENERATION = "key-generation"
    INITIALISATION = "initialisation"
    GET_RESPONSE = "get-response"
    PLAIN = "plain"
    BLIND = "blind"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """Of one command. Exactly one of the details is there, for the acts that have one."""

    act: Act
    use: KeyUse | None = None
    write: Write | None = None
    blind: Blind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Commands with interindustry CLA. P1 and P2 of None fit all; the first row that fits is taken."""

    ins: tuple[int, ...]
    means: Meaning
    source: str
    p1: tuple[int, ...] | None = None
    p2: tuple[int, ...] | None = None

    def fits(self, head: Head) -> bool:
        """Whether the row speaks of this command."""
        return (
            head.ins in self.ins and (self.p1 is None or head.p1 in self.p1) and (self.p2 is None or head.p2 in self.p2)
        )


_PLAIN: Final = Meaning(act=Act.PLAIN)
_SIGN: Final = Meaning(act=Act.KEY_OPERATION, use=KeyUse.SIGN)
_DECIPHER: Final = Meaning(act=Act.KEY_OPERATION, use=KeyUse.DECIPHER)
_AUTHENTICATE: Final = Meaning(act=Act.KEY_OPERATION, use=KeyUse.AUTHENTICATE)
_AGREE: Final = Meaning(act=Act.KEY_OPERATION, use=KeyUse.AGREE)
_ATTEST: Final = Meaning(act=Act.KEY_OPERATION, use=KeyUse.ATTEST)
_PIN_CHANGE: Final = Meaning(act=Act.PIN_CHANGE)
_MALFORMED: Final = Meaning(act=Act.BLIND, blind=Blind.MALFORMED_COMMAND)
_UNKNOWN: Final = Meaning(act=Act.BLIND, blind=Blind.UNKNOWN_COMMAND)
_VENDOR: Final = Meaning(act=Act.BLIND, blind=Blind.VENDOR_COMMAND)


def _writes(write: Write) -> Meaning:
    return Meaning(act=Act.INITIALISATION, write=write)


#: GENERAL AUTHENTICATE stands in no row: see `_authentication`.
TABLE: Final = (
    # Private keys
    Row(ins=(0x2A,), p1=(0x9E,), p2=(0x9A, 0xAC, 0xBC), means=_SIGN, source="ISO/IEC 7816-8, OpenPGP card 7.2.10"),
    Row(ins=(0x2A,), p1=(0x80,), p2=(0x82, 0x84, 0x86), means=_DECIPHER, source="ISO/IEC 7816-8, OpenPGP card 7.2.11"),
    Row(ins=(0x2A,), p1=(0x90,), p2=(0x80, 0xA0), means=_PLAIN, source="ISO/IEC 7816-8: HASH"),
    Row(ins=(0x2A,), p1=(0x00,), p2=(0x92, 0xAE, 0xBE), means=_PLAIN, source="ISO/IEC 7816-8: VERIFY CERTIFICATE"),
    Row(ins=(0x2A,), p1=(0x00,), p2=(0xA2, 0xA8), means=_PLAIN, source="ISO/IEC 7816-8: VERIFY CHECKSUM, SIGNATURE"),
    Row(ins=(0x2A,), p1=(0x8E,), p2=(0x80,), means=_PLAIN, source="ISO/IEC 7816-8: CRYPTOGRAPHIC CHECKSUM"),
    Row(ins=(0x2A,), p1=(0x82, 0x84, 0x86), p2=(0x80,), means=_PLAIN, source="ISO/IEC 7816-8: ENCIPHER"),
    Row(ins=(0x22,), p1=(0x41,), p2=(0xA6,), means=_AGREE, source="BSI TR-03110-3: MSE:SET KAT"),
    Row(ins=(0x88,), means=_AUTHENTICATE, source="ISO/IEC 7816-4: INTERNAL AUTHENTICATE, OpenPGP card 7.2.13"),
    Row(ins=(0xF9,), means=_ATTEST, source="Yubico PIV: ATTEST"),
    # PINs
    Row(ins=(0x20, 0x21), means=Meaning(act=Act.VERIFY), source="ISO/IEC 7816-4, SP 800-73-4 part 2, 3.2.1"),
    Row(ins=(0x24, 0x25), means=_PIN_CHANGE, source="ISO/IEC 7816-4: CHANGE REFERENCE DATA"),
    Row(ins=(0x2C, 0x2D), means=_PIN_CHANGE, source="ISO/IEC 7816-4: RESET RETRY COUNTER"),
    Row(ins=(0x26, 0x28), means=_PIN_CHANGE, source="ISO/IEC 7816-4: DISABLE, ENABLE VERIFICATION REQUIREMENT"),
    Row(ins=(0xFA,), means=_PIN_CHANGE, source="Yubico PIV: SET PIN RETRIES"),
    # Keys and contents
    Row(ins=(0x46, 0x47), p1=(0x81,), means=_PLAIN, source="ISO/IEC 7816-8, OpenPGP card 7.2.14: the public key"),
    Row(ins=(0x46, 0x47), means=Meaning(act=Act.KEY_GENERATION), source="ISO/IEC 7816-8, SP 800-73-4 part 2, 3.3.2"),
    Row(ins=(0xDA, 0xDB), means=_writes(Write.PUT_DATA), source="ISO/IEC 7816-4, SP 800-73-4 part 2, 3.3.1"),
    Row(ins=(0xD0, 0xD1, 0xD2, 0xD6, 0xD7), means=_writes(Write.FILES), source="ISO/IEC 7816-4: WRITE, UPDATE BINARY"),
    Row(ins=(0xDC, 0xDD, 0xE2), means=_writes(Write.FILES), source="ISO/IEC 7816-4: UPDATE, APPEND RECORD"),
    Row(ins=(0xE0, 0xE4), means=_writes(Write.FILES), source="ISO/IEC 7816-9: CREATE, DELETE FILE"),
    Row(ins=(0x0C, 0x0E, 0x0F), means=_writes(Write.ERASE), source="ISO/IEC 7816-4: ERASE RECORD, BINARY"),
    Row(ins=(0xE6, 0xE8), means=_writes(Write.LIFE_CYCLE), source="ISO/IEC 7816-9: TERMINATE DF, EF; OpenPGP card"),
    Row(ins=(0x04, 0x44), means=_writes(Write.LIFE_CYCLE), source="ISO/IEC 7816-9: DEACTIVATE, ACTIVATE FILE"),
    Row(ins=(0xFE,), p1=(0x00,), p2=(0x00,), means=_writes(Write.LIFE_CYCLE), source="ISO/IEC 7816-9: TERMINATE CARD"),
    Row(ins=(0xFE, 0xFF, 0xF6), means=_writes(Write.KEYS), source="Yubico PIV: IMPORT KEY, SET MANAGEMENT, MOVE KEY"),
    Row(ins=(0xFB,), means=_writes(Write.RESET), source="Yubico PIV: RESET"),
    # Tunnels
    Row(ins=(0xC2, 0xC3), means=Meaning(act=Act.BLIND, blind=Blind.TUNNEL), source="ISO/IEC 7816-4: ENVELOPE"),
    # Reading and selecting
    Row(ins=(0xC0, 0xC1), means=Meaning(act=Act.GET_RESPONSE), source="ISO/IEC 7816-4"),
    Row(ins=(0xA4, 0x70, 0x22), means=_PLAIN, source="ISO/IEC 7816-4: SELECT, MANAGE CHANNEL, SECURITY ENVIRONMENT"),
    Row(ins=(0xA5, 0xCA, 0xCB, 0xCC, 0xCD), means=_PLAIN, source="ISO/IEC 7816-4: SELECT DATA, GET (NEXT) DATA"),
    Row(ins=(0xB0, 0xB1, 0xB2, 0xB3), means=_PLAIN, source="ISO/IEC 7816-4: READ BINARY, RECORD"),
    Row(ins=(0xA0, 0xA1, 0xA2), means=_PLAIN, source="ISO/IEC 7816-4: SEARCH BINARY, RECORD"),
    Row(ins=(0x84, 0x82), means=_PLAIN, source="ISO/IEC 7816-4: GET CHALLENGE, EXTERNAL AUTHENTICATE"),
    Row(ins=(0xF7, 0xF8, 0xFD), means=_PLAIN, source="Yubico PIV: GET METADATA, SERIAL, VERSION"),
)

_GENERAL_AUTHENTICATE: Final = (0x86, 0x87)
#: The card management key (SP 800-73-4 part 1, table 4b), which is symmetric, and its algorithms (SP 800-78-4).
_MANAGEMENT_KEY: Final = 0x9B
_SYMMETRIC: Final = (0x00, 0x03, 0x08, 0x0A, 0x0C)
_RESPONSE, _EXPONENTIATION = 0x82, 0x85


def meaning(head: Head | None, template: bytes | None) -> Meaning:
    """What a command does.

    Args:
        head: None if it has less than four bytes.
        template: The data of GENERAL AUTHENTICATE; None while it is not known, or cannot be.
    """
    if head is None:
        return _MALFORMED
    if not head.is_interindustry:
        return _VENDOR
    if head.ins in _GENERAL_AUTHENTICATE:
        return _authentication(head, template)
    return next((row.means for row in TABLE if row.fits(head)), _UNKNOWN)


def _authentication(head: Head, template: bytes | None) -> Meaning:
    """GENERAL AUTHENTICATE (ISO/IEC 7816-4; SP 800-73-4 part 2, 3.2.4 and its appendix A)."""
    lengths = None if template is None or head.is_secured else template_lengths(template)
    if lengths is None:
        return _AUTHENTICATE
    if lengths.get(_EXPONENTIATION):
        return _AGREE
    # The host's answer to a challenge, or the question for one, uses no private key; what it gives besides may be
    # worked on with one.
    is_worked_on = any(length for tag, length in lengths.items() if tag != _RESPONSE)
    is_management = head.p2 == _MANAGEMENT_KEY and head.p1 in _SYMMETRIC
    return _AUTHENTICATE if is_worked_on and not is_management else _PLAIN


def outcome(status: int) -> Outcome:
    """How a command ended that its card answered with this status (ISO/IEC 7816-4, table 5)."""
    first = status >> 8
    if status == 0x9000 or first in (0x61, 0x62, 0x63):
        return Outcome.OK
    # 64 says that nothing changed, 67 to 6E that it was not begun.
    return Outcome.REFUSED if first == 0x64 or 0x67 <= first <= 0x6E else Outcome.UNKNOWN


def pin_verification(status: int) -> PinVerification:
    """How a VERIFY with data ended (ISO/IEC 7816-4; cards of OpenPGP answer a wrong PIN with 6982)."""
    if status & 0xFFF0 == 0x63C0:
        return PinVerification(outcome=PinOutcome.REFUSED, tries_left=status & 0x0F)
    if status == 0x6983:
        return PinVerification(outcome=PinOutcome.REFUSED, tries_left=0)
    first = status >> 8
    if first in (0x63, 0x69):
        return PinVerification(outcome=PinOutcome.REFUSED)
    if first == 0x64 or 0x67 <= first <= 0x6E:
        return PinVerification(outcome=PinOutcome.DECLINED)
    return PinVerification(outcome=PinOutcome.ACCEPTED if status == 0x9000 else PinOutcome.UNKNOWN)
