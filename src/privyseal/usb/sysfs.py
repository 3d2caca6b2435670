# SPDX-License-Identifier: Apache-2.0
"""Attributes in sysfs, read in bounded size and without trust: devices write some of them, and vanish meanwhile."""

import errno
import os
import re
import stat
from pathlib import Path
from typing import Final

__all__ = ["read_attribute", "read_number", "read_text"]

#: The kernel gives an attribute one page.
_ATTRIBUTE_BYTES: Final = 4096
#: A USB string descriptor has at most 126 UTF-16 units.
_TEXT_CHARACTERS: Final = 126
#: What must not get into a terminal or a log: control characters, lone surrogates, marks that turn the direction.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def read_attribute(path: Path) -> bytes:
    """The first 4096 bytes of an attribute.

    Raises:
        OSError: It is not there, is no plain file, or the device vanished under the reader.
    """
    # Not blocking and not through a link: what lies there may be anything, where it is not the kernel's.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not an attribute", str(path))
        return os.read(descriptor, _ATTRIBUTE_BYTES)
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str:
    """A string that the device gave, at most 126 characters, fit to be shown; empty if it has none."""
    try:
        text = read_attribute(path).decode("utf-8", "replace")
    except OSError:
        return ""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.removesuffix("\n"))[:_TEXT_CHARACTERS].strip()


def read_number(path: Path, *, base: int, largest: int) -> int:
    """A number from 0 to `largest`, written in `base` (10 or 16).

    Raises:
        OSError: As `read_attribute` does.
        ValueError: Something else stands there.
    """
    text = read_attribute(path).removesuffix(b"\n").strip(b" ")
    if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", text):
        raise ValueError(f"{path} holds no number")
    number = int(text, base)
    if number > largest:
        raise ValueError(f"{path} holds {number}, more than {largest}")
    return number
