# SPDX-License-Identifier: Apache-2.0
"""Presenting a PIN to a PKCS#11 token, and changing it: C_Login and C_SetPIN, both journalled (DESIGN promise 5)."""

from privyseal.errors import TokenError
from privyseal.tokens.ckr import Ckr, Rv
from privyseal.tokens.cryptoki import Module
from privyseal.tokens.cryptoki_types import UserType
from privyseal.tokens.driver import Progress
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import PinAttempt, PinJournal, journal_name
from privyseal.tokens.pin_outcomes import CHANGE_OUTCOMES, NEW_PIN_REFUSED, login_outcome
from privyseal.tokens.pin_supply import PinSupply
from privyseal.tokens.token_objects import check_new_pin, pin_state

__all__ = ["Pkcs11Pin"]


class Pkcs11Pin:
    """The PIN of one token: where it comes from, what the journal knows of it, who is told when it is presented."""

    def __init__(self, *, supply: PinSupply, journal: PinJournal, progress: Progress) -> None:
        self._supply = supply
        self._journal = journal
        self._progress = progress

    def login(self, module: Module, session: int, slot: int) -> PinBuffer | None:
        """Log a session in as the user.

        Returns:
            A copy of the PIN that was accepted; None if the token was logged in and looked at no PIN.

        Raises:
            TokenError: as `PinSupply.pin`, `PinJournal.attempt` and C_Login.
        """
        with self._supply.pin(self._journal.history(journal_name(module.token(slot)))) as pin:
            return pin.copy() if self.present(module, session, slot, user_type=UserType.USER, pin=pin) else None

    def present(self, module: Module, session: int, slot: int, *, user_type: int, pin: PinBuffer) -> bool:
        """C_Login with a PIN. False if the token was logged in and looked at none.

        Raises:
            TokenError: as `PinJournal.attempt` and C_Login.
        """
        token = module.token(slot)
        with self._journal.attempt(
            serial=journal_name(token),
            pin=pin,
            pin_state=pin_state(token.flags),
        ) as attempt:
            self._progress("C_Login")
            try:
                module.login(session, user_type, pin.address, len(pin))
            except Ckr as error:
                outcome = login_outcome(error.ckr)
                if outcome is not None:
                    attempt.conclude(outcome)
                if error.ckr == Rv.USER_ALREADY_LOGGED_IN:
                    return False
                raise
            attempt.conclude("accepted")
            if user_type == UserType.USER:
                self._supply.accepted()
            self._progress("")  # what fails from here on did not fail in C_Login
            return True

    def change(self, module: Module, session: int, slot: int, new: PinBuffer) -> None:
        """C_SetPIN in a session that may write and is logged in.

        Raises:
            TokenError: see `Driver.change_pin`.
        """
        token = module.token(slot)
        check_new_pin(new, token.min_pin_bytes, token.max_pin_bytes)
        serial = journal_name(token)
        with self._supply.pin(self._journal.history(serial)) as old:
            state = pin_state(token.flags)
            with self._journal.attempt(serial=serial, pin=old, pin_state=state, new=new) as attempt:
                self._supply.prepare(new)
                self._progress("C_SetPIN")
                try:
                    module.set_pin(session, old, new)
                except Ckr as error:
                    self._conclude_unchanged(attempt, error)
                    raise
                attempt.conclude("changed")
                self._supply.adopt(new)
                self._progress("")

    def _conclude_unchanged(self, attempt: PinAttempt, error: Ckr) -> None:
        outcome = CHANGE_OUTCOMES.get(error.ckr)
        if outcome is None:
            return
        self._supply.withdraw()
        attempt.conclude("unchanged")
        attempt.conclude(outcome)
        if error.ckr in NEW_PIN_REFUSED:
            raise TokenError(
                "token.pin_new",
                f"the token does not take this as its new PIN: {error.message}",
                hint="the present PIN stays; the vendor's documentation says what a PIN must be like",
                ckr=error.ckr,
                function=error.function,
            ) from error
