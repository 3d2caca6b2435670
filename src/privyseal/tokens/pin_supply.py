# SPDX-License-Identifier: Apache-2.0
"""Where a driver gets the PIN from, and how a new one takes its place there.

A new PIN is in `PIN-FILE.new` before the token hears of it, and takes the file's name after the token took it. If the
process ends in between, the PIN journal says which of the two is right, or that the old one was refused; the old one is
tried as long as it does not.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from privyseal.errors import TokenError
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.files import replace_private, sync_directory
from privyseal.tokens.keyring_pin import read_keyring
from privyseal.tokens.pin import PinBuffer, read_pin_file
from privyseal.tokens.pin_history import PinHistory

__all__ = ["PinSupply", "read_credential"]

_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"


class PinSupply:
    """The PIN of one token: what a person handed in, or what its configuration names, read anew for each login."""

    def __init__(self, config: TokenConfig, *, prompted: PinBuffer | None) -> None:
        self._config = config
        self._prompted = prompted
        #: What becomes of PIN-FILE.new once the token has taken the PIN that was supplied last.
        self._then: str = ""

    @property
    def _fresh(self) -> Path:
        return Path(self._config.pin_file + ".new")

    @contextlib.contextmanager
    def pin(self, history: PinHistory) -> Iterator[PinBuffer]:
        """The PIN, for as long as the context lasts.

        Args:
            history: What the PIN journal says of the token.

        Raises:
            TokenError: `token.pin_missing` if there is none; as `read_pin_file`; `token.pin_keyring`.
        """
        self._then = ""
        if self._prompted is not None:
            yield self._prompted
            return
        pin = self._read(history)
        try:
            yield pin
        finally:
            pin.wipe()

    def accepted(self) -> None:
        """The token took the PIN that was supplied last; called while nobody else may present one.

        Raises:
            TokenError: `token.pin_file` if PIN-FILE.new cannot be put in its place.
        """
        try:
            if self._then == "adopt":
                self._fresh.replace(self._config.pin_file)
            elif self._then == "drop":
                self._fresh.unlink(missing_ok=True)
            else:
                return
            sync_directory(self._fresh.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        self._then = ""

    def prepare(self, new: PinBuffer) -> None:
        """A new PIN is about to be given to the token: have it where a crash does not lose it.

        Raises:
            TokenError: `token.pin_file` if it cannot be written.
        """
        if not self._is_file:
            return  # the person who typed it has it
        try:
            replace_private(self._fresh, new.view)
        except OSError as error:
            raise self._unwritable(error) from error

    def adopt(self, new: PinBuffer) -> None:
        """The token took the new PIN.

        Raises:
            TokenError: as `accepted`. The new PIN is in PIN-FILE.new then.
        """
        if self._is_file:
            self._then = "adopt"
            self.accepted()
        elif self._prompted is None:
            self._prompted = new.copy()
        else:
            self._prompted.fill(new.view)

    def withdraw(self) -> None:
        """The token refused the new PIN."""
        if self._is_file:
            self._fresh.unlink(missing_ok=True)

    @property
    def _is_file(self) -> bool:
        return self._prompted is None and bool(self._config.pin_file)

    def _read(self, history: PinHistory) -> PinBuffer:
        config = self._config
        if config.pin_file:
            return self._read_file(history)
        if config.pin_credential:
            return read_credential(config.pin_credential)
        if config.pin_keyring:
            service, _, account = config.pin_keyring.partition("/")
            return read_keyring(service, account)
        raise TokenError(
            "token.pin_missing",
            "the token needs its PIN, and nobody has handed it in since the start"
            if config.pin_prompt
            else "the token needs its PIN, and none was given",
            hint=f"privyseal token unlock {config.name} --dir DIR --prompt"
            + ("" if config.pin_prompt else "; or configure `pin_file`"),
        )

    def _read_file(self, history: PinHistory) -> PinBuffer:
        if not self._fresh.exists():
            return read_pin_file(self._config.pin_file)
        fresh = read_pin_file(str(self._fresh))
        known = history.fingerprint(fresh)
        if not known or known not in (history.accepted, history.changing):
            fresh.wipe()  # not ours, or from before the journal was lost
            return read_pin_file(self._config.pin_file)
        try:
            present = read_pin_file(self._config.pin_file)
        except TokenError:
            if Path(self._config.pin_file).exists():
                raise
            self._then = "adopt"
            return fresh
        if history.fingerprint(present) in history.refused:
            present.wipe()
            self._then = "adopt"
            return fresh
        fresh.wipe()
        self._then = "drop"
        return present

    def _unwritable(self, error: OSError) -> TokenError:
        return TokenError(
            "token.pin_file",
            f"{self._fresh} cannot be written: {error.strerror}",
            hint="a PIN file that is changed must lie in a directory that the agent's account may write to",
        )


def read_credential(name: str) -> PinBuffer:
    """The PIN in a systemd credential of this service.

    Raises:
        TokenError: `token.pin_credential` if the service was given no credentials; as `read_pin_file`.
    """
    directory = os.environ.get(_CREDENTIALS, "")
    if not directory:
        raise TokenError(
            "token.pin_credential",
            f"there is no credential {name!r}: this process was given none ({_CREDENTIALS} is not set)",
            hint=f"LoadCredential={name}:/etc/privyseal/{name} in the agent's unit; only its service sees it",
        )
    return read_pin_file(str(Path(directory) / name))
