# SPDX-License-Identifier: Apache-2.0
"""The PIN in memory, and in a file (DESIGN §6, promise 8).

A `PinBuffer` is one anonymous page: locked against swapping, left out of core files and of forked children,
wiped when it is no longer needed. What Python cannot do: the interpreter's own copies. Only the software
token's key files and hashlib's scrypt take the PIN as an object; PKCS#11 is given the buffer's address. A PIN
typed at a prompt has been a Python object before it came here; whoever prompts should use a bytearray and
wipe it.
"""

import contextlib
import ctypes
import mmap
import os
import resource
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from privyseal.errors import TokenError

__all__ = ["MAX_PIN_BYTES", "PinBuffer", "leave_no_core", "read_pin_file"]

#: Longer than any token's ulMaxPinLen that is known.
MAX_PIN_BYTES: Final = 255

_PR_SET_DUMPABLE: Final = 4


class PinBuffer:
    """A PIN in one locked page. Compares, prints and hashes as an object, never as its content."""

    __slots__ = ("_array", "_length", "_page")

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        for advice in ("MADV_DONTDUMP", "MADV_DONTFORK"):
            # Linux only; elsewhere the process has core files switched off altogether.
            if hasattr(mmap, advice):
                self._page.madvise(getattr(mmap, advice))
        self._array = (ctypes.c_ubyte * mmap.PAGESIZE).from_buffer(self._page)
        self._length = 0
        # Refused without privilege beyond RLIMIT_MEMLOCK; the PIN is used all the same, as refusing to sign
        # would only move it into worse places.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mlock(ctypes.c_void_p(self.address), ctypes.c_size_t(mmap.PAGESIZE))

    @property
    def address(self) -> int:
        """Where the PIN stands, for C_Login."""
        return ctypes.addressof(self._array)

    def __len__(self) -> int:
        return self._length

    @property
    def view(self) -> memoryview:
        """The PIN without a copy; must not outlive the buffer."""
        return memoryview(self._array)[: self._length].cast("B")

    def fill(self, pin: bytes | bytearray | memoryview) -> None:
        """Take over a PIN from other memory.

        Raises:
            TokenError: `token.pin_missing` if it is empty, `token.pin_file` if it cannot be a PIN.
        """
        if len(pin) > MAX_PIN_BYTES:
            raise TokenError("token.pin_file", f"the PIN is longer than {MAX_PIN_BYTES} bytes")
        self.wipe()
        memoryview(self._array).cast("B")[: len(pin)] = pin
        self._length = len(pin)
        self._check("the PIN that was handed in")

    def read(self, descriptor: int, length: int) -> None:
        """Read exactly `length` bytes from a pipe straight into the page.

        Raises:
            TokenError: `token.pin_missing` if the pipe ends early, `token.pin_file` if it cannot be a PIN.
        """
        self.wipe()
        if length > MAX_PIN_BYTES:
            raise TokenError("token.pin_file", f"the PIN is longer than {MAX_PIN_BYTES} bytes")
        target = memoryview(self._array).cast("B")
        while self._length < length:
            got = os.readv(descriptor, [target[self._length : length]])
            if got == 0:
                raise TokenError("token.pin_missing", "the pipe ended before the whole PIN had arrived")
            self._length += got
        self._check("the PIN that was handed in")

    async def receive(self, receive: Callable[[memoryview], Awaitable[int]], length: int) -> None:
        """The same from a connection: `receive` puts what has come into the memory given, and says how much it was.

        Raises:
            TokenError: as `read`.
        """
        self.wipe()
        if length > MAX_PIN_BYTES:
            raise TokenError("token.pin_file", f"the PIN is longer than {MAX_PIN_BYTES} bytes")
        target = memoryview(self._array).cast("B")
        while self._length < length:
            got = await receive(target[self._length : length])
            if got == 0:
                raise TokenError("token.pin_missing", "the connection ended before the whole PIN had arrived")
            self._length += got
        self._check("the PIN that was handed in")

    def read_file(self, descriptor: int, name: str) -> None:
        """Read a PIN file straight into the page; one line ending at its end is not part of the PIN.

        Raises:
            TokenError: `token.pin_missing`, `token.pin_file`.
        """
        self.wipe()
        target = memoryview(self._array).cast("B")
        while self._length < len(target) and (got := os.readv(descriptor, [target[self._length :]])):
            self._length += got
        if self._length and self._array[self._length - 1] == ord("\n"):
            self._length -= 1
            if self._length and self._array[self._length - 1] == ord("\r"):
                self._length -= 1
        self._check(f"PIN file {name}")

    def _check(self, name: str) -> None:
        pin = self._array[: self._length]
        if not pin:
            raise TokenError("token.pin_missing", f"{name} is empty")
        if len(pin) > MAX_PIN_BYTES or any(byte in (0x00, 0x0A, 0x0D) for byte in pin):
            self.wipe()
            raise TokenError(
                "token.pin_file",
                f"{name} does not hold one line of at most {MAX_PIN_BYTES} bytes",
                hint="write the PIN alone into the file, on one line",
            )

    def copy(self) -> "PinBuffer":
        """The same PIN in another locked page."""
        other = PinBuffer()
        ctypes.memmove(other.address, self.address, self._length)
        other._length = self._length
        return other

    def wipe(self) -> None:
        """Overwrite the page; the buffer is empty then and may be filled again."""
        ctypes.memset(self.address, 0, mmap.PAGESIZE)
        self._length = 0

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a PIN buffer is not for copying or pickling")


def leave_no_core() -> None:
    """This process leaves no core file, and no other of the same user may attach to it (prctl(2), Linux)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def read_pin_file(path: str) -> PinBuffer:
    """Read a PIN file that only its owner may read.

    A file in the service manager's credentials directory ($CREDENTIALS_DIRECTORY, systemd.exec(5)) is taken
    as it is: systemd owns it as root and lets this process in by an access list, which shows as a group's
    permission.

    Raises:
        TokenError: `token.pin_file` if it cannot be read, is no regular file, belongs to somebody else, or
            others may read or write it; `token.pin_missing` if it is empty.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TokenError(
            "token.pin_file",
            f"PIN file {path} cannot be opened: {error.strerror}",
            hint="create it with mode 0600, owned by the user that runs the agent",
        ) from error
    try:
        _check_permissions(descriptor, path)
        pin = PinBuffer()
        pin.read_file(descriptor, path)
    except OSError as error:
        raise TokenError("token.pin_file", f"PIN file {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return pin


def _check_permissions(descriptor: int, path: str) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise TokenError("token.pin_file", f"PIN file {path} is not a regular file")
    if sys.platform == "win32":
        return  # mode bits say nothing there
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and Path(path).parent.resolve() == Path(credentials).resolve() and status.st_uid == 0:
        return
    if status.st_uid != os.geteuid():
        raise TokenError(
            "token.pin_file",
            f"PIN file {path} belongs to user {status.st_uid}, not to the user that runs this process",
            hint=f"chown {os.geteuid()} {path}",
        )
    if status.st_mode & 0o077:
        raise TokenError(
            "token.pin_file",
            f"PIN file {path} has mode {stat.S_IMODE(status.st_mode):04o}: others than its owner may use it",
            hint=f"chmod 0600 {path}; if somebody may have read it, change the PIN",
        )
