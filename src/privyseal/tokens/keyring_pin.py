# SPDX-License-Identifier: Apache-2.0
"""The PIN out of the keyring of the user's session (the package `keyring`, extra `keyring`).

`keyring` hands secrets out as Python text, which cannot be wiped, over libraries that keep copies of their own. So a
process of its own asks it (`python -m privyseal.tokens.keyring_pin SERVICE ACCOUNT`), writes the PIN into a pipe and
ends; the worker reads the pipe straight into its locked page. What is left is memory of a process that is gone.
"""

import os
import select
import subprocess
import sys
import time
from typing import Final, NoReturn

from privyseal.errors import TokenError
from privyseal.tokens.pin import MAX_PIN_BYTES, PinBuffer, leave_no_core

__all__ = ["main", "read_keyring"]

_SECONDS: Final = 20.0
_ABSENT, _NO_PACKAGE, _FAILED = 3, 4, 5


def read_keyring(service: str, account: str) -> PinBuffer:
    """The PIN that the keyring has for an account of a service.

    Raises:
        TokenError: `token.pin_keyring` if there is none or the keyring cannot be asked.
    """
    asked = subprocess.Popen(
        [sys.executable, "-P", "-m", "privyseal.tokens.keyring_pin", service, account],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a backend's traceback may show what it was given
    )
    pin = PinBuffer()
    deadline = time.monotonic() + _SECONDS
    try:
        status = _read(asked, pin, deadline)
    except TokenError:
        pin.wipe()
        raise
    except subprocess.TimeoutExpired:
        status = None
    finally:
        asked.kill()
        asked.wait()
    if status == 0:
        return pin
    pin.wipe()
    raise _refusal(f"{service}/{account}", status)


def _read(asked: "subprocess.Popen[bytes]", pin: PinBuffer, deadline: float) -> int:
    if asked.stdout is None:
        raise AssertionError("unreachable: stdout is a pipe")
    with asked.stdout as pipe:
        # It writes once, when it knows all, or nothing; a person may have to open the keyring first.
        ready, _, _ = select.select([pipe], [], [], _SECONDS)
        if not ready:
            raise subprocess.TimeoutExpired(asked.args, _SECONDS)
        head = os.read(pipe.fileno(), 1)
        if head:
            pin.read(pipe.fileno(), head[0])
    return asked.wait(max(deadline - time.monotonic(), 0.1))


def _refusal(name: str, status: int | None) -> TokenError:
    hint = "as the agent's account, with its keyring open: keyring get SERVICE ACCOUNT"
    match status:
        case None:
            why = f"did not answer within {_SECONDS:g} s; it may wait for somebody to open it"
        case 3:
            why = f"has nothing for {name}"
            hint = "as the agent's account: keyring set SERVICE ACCOUNT"
        case 4:
            why = "cannot be asked without the package `keyring`"
            hint = "pip install 'privyseal[agent,keyring]'"
        case _:
            why = f"could not be asked for {name}"
    return TokenError("token.pin_keyring", f"the keyring {why}", hint=hint)


def main(arguments: list[str]) -> NoReturn:
    """Write length (one byte) and PIN to stdout; end without running anything at exit."""
    leave_no_core()
    service, account = arguments
    try:
        import keyring  # noqa: PLC0415 - an extra, and only here
    except ModuleNotFoundError:
        os._exit(_NO_PACKAGE)
    try:
        secret = keyring.get_password(service, account)
    except Exception:  # noqa: BLE001 - a backend raises what it likes; the process ends here
        os._exit(_FAILED)
    if secret is None:
        os._exit(_ABSENT)
    pin = secret.encode()
    if len(pin) > MAX_PIN_BYTES:
        os._exit(_FAILED)
    os.write(1, bytes([len(pin)]) + pin)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
