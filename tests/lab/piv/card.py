# SPDX-License-Identifier: Apache-2.0
"""A PIV card (SP 800-73-4 part 2): from command bytes to answer bytes, with a PIN that locks.

Beyond the standard it counts its private-key operations where an OpenPGP card does (DO 93): GET DATA by
P1-P2 answers `00 CA 00 93` with the three bytes and `00 CA 00 7A` with the template around them, and the
standard's own GET DATA (INS CB) answers for tag 93 with the data object. The count outlives a reset.

The secure messaging look-alike has the frames of ISO/IEC 7816-4 §10 and none of its cryptography: commands of
class 0C carry their data in DO 81, answers come in DO 81, 99 and 8E under an outer 9000. It is there for
whoever reads along on the wire and must not take the outer status for the inner one.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from lab.piv.apdu import Answer, Command, Ins, MalformedCommandError, Sw
from lab.piv.keys import CardKey
from lab.piv.objects import AID, SIGNATURE_COUNTER, application_template, data_objects, signature_counter
from lab.piv.tlv import MalformedTlvError, decode, encode

__all__ = ["ALWAYS_SLOT", "Gate", "PivCard"]

#: The digital signature key: its PIN is good for one operation (SP 800-73-4 part 1, table 4b: "PIN always").
ALWAYS_SLOT = 0x9C

_PIN_REFERENCE = 0x80
_PIN_BYTES = 8
_SECURITY_TEMPLATE = 0x7A


class Gate(Protocol):
    """Sees every whole command before and after it takes effect, and may answer in the card's place."""

    def before(self, command: Command) -> Answer | None: ...

    def after(self, command: Command, answer: Answer) -> Answer: ...


class PivCard:
    """One card. Not for several threads at once: a wire asks one thing after the other."""

    def __init__(self, keys: Mapping[int, CardKey], *, pin: str, gate: Gate, max_tries: int = 3) -> None:
        self._keys = keys
        self._objects = data_objects(keys)
        self._gate = gate
        self._max_tries = max_tries
        self.tries_left = max_tries
        self.operations = 0
        #: How many PINs were compared, and how many of them were wrong.
        self.pins_judged = 0
        self.pins_refused = 0
        self.has_secure_frames = False
        self.set_pin(pin)
        self.reset()

    def set_pin(self, pin: str) -> None:
        self._pin = pin.encode().ljust(_PIN_BYTES, b"\xff")

    def reset(self) -> None:
        """Power off, power on, or a warm reset: what was proven is forgotten, the counters are not."""
        self._is_selected = False
        self._is_verified = False
        #: Whether the PIN was given since the last operation that wanted it for itself.
        self._is_fresh = False
        self._rest = b""
        self._chain = b""

    def transmit(self, raw: bytes) -> bytes:
        """Answer one command APDU."""
        try:
            command = Command.decode(raw)
            if command.is_secure:
                return self._in_secure_frame(command).encode()
            return self._whole(command).encode()
        except (MalformedCommandError, MalformedTlvError):
            return Answer(sw=Sw.WRONG_LENGTH).encode()

    def _in_secure_frame(self, outer: Command) -> Answer:
        if not self.has_secure_frames:
            return Answer(sw=Sw.NO_SECURE_MESSAGING)
        answer = self._one(replace(outer, data=decode(outer.data).get(0x81, b"")))
        data = encode(0x81, answer.data) if answer.data else b""
        return Answer(data=data + encode(0x99, answer.sw.to_bytes(2, "big")) + encode(0x8E, bytes(8)))

    def _whole(self, command: Command) -> Answer:
        """Command chaining in, GET RESPONSE out (§5.3)."""
        if command.ins == Ins.GET_RESPONSE:
            return self._part(command.expected_bytes)
        if command.is_chained:
            self._chain += command.data
            return Answer()
        data, self._chain = self._chain + command.data, b""
        answer = self._one(replace(command, data=data))
        if answer.sw != Sw.OK:
            return answer
        self._rest = answer.data
        return self._part(command.expected_bytes)

    def _part(self, most_bytes: int) -> Answer:
        part, self._rest = self._rest[:most_bytes], self._rest[most_bytes:]
        left = len(self._rest)
        return Answer(data=part, sw=Sw.MORE | (left if left < 256 else 0) if left else Sw.OK)

    def _one(self, command: Command) -> Answer:
        refused = self._gate.before(command)
        return self._gate.after(command, self._effect(command) if refused is None else refused)

    def _effect(self, command: Command) -> Answer:
        if command.ins == Ins.SELECT:
            return self._select(command)
        # The counter is read without a selection, as on an OpenPGP card, whose application is the default one.
        if not self._is_selected and command.ins != Ins.GET_DATA_BY_P1P2:
            return Answer(sw=Sw.NO_SUCH_INS)
        handlers: dict[int, Callable[[Command], Answer]] = {
            Ins.VERIFY: self._verify,
            Ins.GENERAL_AUTHENTICATE: self._authenticate,
            Ins.GET_DATA: self._get_data,
            Ins.GET_DATA_BY_P1P2: self._get_data_by_p1p2,
        }
        handler = handlers.get(command.ins)
        return handler(command) if handler else Answer(sw=Sw.NO_SUCH_INS)

    def _select(self, command: Command) -> Answer:
        if command.p1 != 0x04 or len(command.data) < 5 or not AID.startswith(command.data):
            return Answer(sw=Sw.NOT_FOUND)
        if not self._is_selected:
            self._is_verified = self._is_fresh = False
        self._is_selected = True
        return Answer(data=application_template())

    def _verify(self, command: Command) -> Answer:
        if command.p2 != _PIN_REFERENCE:
            return Answer(sw=Sw.NO_SUCH_REFERENCE)
        if command.has_pin:
            return self._judge(command.data)
        if command.p1 == 0xFF:
            self._is_verified = self._is_fresh = False
        elif not self._is_verified:
            return self._tries()
        return Answer()

    def _judge(self, pin: bytes) -> Answer:
        if not self.tries_left:
            return Answer(sw=Sw.BLOCKED)
        if len(pin) != _PIN_BYTES:
            return Answer(sw=Sw.WRONG_DATA)
        self.pins_judged += 1
        self._is_verified = self._is_fresh = pin == self._pin
        if self._is_verified:
            self.tries_left = self._max_tries
            return Answer()
        self.pins_refused += 1
        self.tries_left -= 1
        return self._tries()

    def _tries(self) -> Answer:
        return Answer(sw=Sw.TRIES | self.tries_left if self.tries_left else Sw.BLOCKED)

    def _authenticate(self, command: Command) -> Answer:
        key = self._keys.get(command.p2)
        if key is None:
            return Answer(sw=Sw.NO_SUCH_REFERENCE)
        if command.p1 != key.algorithm:
            return Answer(sw=Sw.WRONG_P1P2)
        challenge = decode(decode(command.data).get(0x7C, b"")).get(0x81)
        if not challenge:
            return Answer(sw=Sw.WRONG_DATA)
        if not self._is_verified or (command.p2 == ALWAYS_SLOT and not self._is_fresh):
            return Answer(sw=Sw.SECURITY_STATUS)
        self._is_fresh = self._is_fresh and command.p2 != ALWAYS_SLOT
        signature = key.operate(challenge)
        if signature is None:
            return Answer(sw=Sw.WRONG_DATA)
        self.operations += 1
        return Answer(data=encode(0x7C, encode(0x82, signature)))

    def _get_data(self, command: Command) -> Answer:
        tag = int.from_bytes(decode(command.data).get(0x5C, b""), "big")
        if tag == SIGNATURE_COUNTER:
            return Answer(data=signature_counter(self.operations))
        data = self._objects.get(tag)
        return Answer(sw=Sw.NOT_FOUND) if data is None else Answer(data=data)

    def _get_data_by_p1p2(self, command: Command) -> Answer:
        counter = signature_counter(self.operations)
        if command.p1 == 0 and command.p2 == SIGNATURE_COUNTER:
            return Answer(data=counter[2:])
        if command.p1 == 0 and command.p2 == _SECURITY_TEMPLATE:
            return Answer(data=encode(_SECURITY_TEMPLATE, counter))
        return Answer(sw=Sw.NO_SUCH_REFERENCE)
