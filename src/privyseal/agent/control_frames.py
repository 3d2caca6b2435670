# SPDX-License-Identifier: Apache-2.0
"""What goes over the control socket of a running agent, and where that socket is.

One request a connection: a big-endian u32 length, one JSON object, then, if it announces `pin_bytes`, that many bytes
of a PIN as they are. The answer: the same header and one JSON object. A PIN is never inside a JSON frame.
"""

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from privyseal.errors import ConfigError, MalformedInputError
from privyseal.wire.api import Problem

__all__ = [
    "HEADER_BYTES",
    "MAX_FRAME_BYTES",
    "ControlAnswer",
    "ControlRequest",
    "decode",
    "encode",
    "frame_length",
    "socket_address",
]

T = TypeVar("T")

HEADER_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 64 * 1024
#: sun_path less its NUL; macOS has 4 bytes fewer.
_MAX_ADDRESS_BYTES: Final = 103
_OWN_DESCRIPTORS: Final = Path("/proc/self/fd")


class ControlRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command for the agent.

    Attributes:
        command: Its name.
        arguments: A JSON object that the command knows.
        pin_bytes: Length of the PIN that follows the frame; 0 for none.
    """

    command: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    pin_bytes: int = 0


class ControlAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of it: an object that the command's client knows, or an error."""

    answer: msgspec.Raw = msgspec.Raw(b"{}")
    error: Problem | None = None


def encode(message: msgspec.Struct) -> bytes:
    """Header and frame.

    Raises:
        MalformedInputError: `control.malformed` if it is longer than 64 KiB.
    """
    body = msgspec.json.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise MalformedInputError("control.malformed", f"a frame of {len(body)} bytes is longer than {MAX_FRAME_BYTES}")
    return struct.pack(">I", len(body)) + body


def frame_length(header: bytes) -> int:
    """Length of the frame behind a header.

    Raises:
        MalformedInputError: `control.malformed` if it is longer than 64 KiB.
    """
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME_BYTES:
        raise MalformedInputError(
            "control.malformed", f"a frame announces {length} bytes; at most {MAX_FRAME_BYTES} may come"
        )
    return length


def decode(body: bytes | msgspec.Raw, kind: type[T]) -> T:
    """A frame, or arguments within one.

    Raises:
        MalformedInputError: `control.malformed`.
    """
    try:
        return msgspec.json.decode(body, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInputError("control.malformed", f"not what the control socket takes: {error}") from error


@contextlib.contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """An address for a socket file, for as long as the context lasts, also where its path is too long for one.

    Raises:
        ConfigError: `agent.socket_path` if the path is too long and the system offers no way around that. OSError: if
            the directory cannot be opened.
    """
    if len(os.fsencode(path)) <= _MAX_ADDRESS_BYTES:
        yield str(path)
        return
    if not _OWN_DESCRIPTORS.is_dir():
        raise ConfigError(
            "agent.socket_path",
            f"{path} is longer than the {_MAX_ADDRESS_BYTES} bytes that the name of a socket may have here",
            hint="keep the agent's directory at a shorter path",
        )
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield str(_OWN_DESCRIPTORS / str(directory) / path.name)
    finally:
        os.close(directory)
