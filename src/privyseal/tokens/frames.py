# SPDX-License-Identifier: Apache-2.0
"""Messages between supervisor and worker: a big-endian u32 length, then one MessagePack map.

The supervisor speaks first (`Open`), then one call at a time; the worker answers each with one answer or a
`Failure`, and says `Progress` in between. One `SignCall` may be sent ahead, while the worker has another: if that one
fails, the one behind it is not begun, and answered with `Skipped`. A PIN is never inside a frame: its bytes follow
`Open` or `ChangePinCall` as they are.
"""

import struct
from typing import Final

import msgspec

from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import KeyCounter, KeyKind, ReaderUse, TokenInfo, TokenKey
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.contents import ModuleContents

__all__ = [
    "HEADER_BYTES",
    "MAX_FRAME_BYTES",
    "Answer",
    "Call",
    "ChangePinCall",
    "CloseCall",
    "CountersAnswer",
    "CountersCall",
    "Done",
    "Failure",
    "GenerateAnswer",
    "GenerateCall",
    "InfoAnswer",
    "InfoCall",
    "KeysAnswer",
    "KeysCall",
    "Open",
    "ProbeAnswer",
    "ProbeCall",
    "Progress",
    "ReaderUseAnswer",
    "ReaderUseCall",
    "ReinitializeCall",
    "ScanAnswer",
    "ScanCall",
    "SignAnswer",
    "SignCall",
    "Skipped",
    "StoreCall",
    "decode_answer",
    "decode_call",
    "encode",
    "frame_length",
]

HEADER_BYTES: Final = 4
MAX_FRAME_BYTES: Final = 4 * 1024 * 1024


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """The first call. `pin_bytes` bytes of PIN follow the frame; 0 if the PIN comes from a file."""

    config: TokenConfig
    pin_bytes: int


class InfoCall(msgspec.Struct, frozen=True, tag="info"):
    """`Token.info`."""


class KeysCall(msgspec.Struct, frozen=True, tag="keys"):
    """`Token.keys`."""


class SignCall(msgspec.Struct, frozen=True, kw_only=True, tag="sign"):
    """`Token.sign`; `ahead` if the call before it was not answered when this one was sent."""

    key_id: bytes
    mechanism: Mechanism
    digest: bytes
    ahead: bool = False


class GenerateCall(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """`ManagedToken.generate_key`."""

    kind: KeyKind
    key_id: bytes
    label: str


class StoreCall(msgspec.Struct, frozen=True, kw_only=True, tag="store"):
    """`ManagedToken.store_certificates`."""

    key_id: bytes
    chain: tuple[bytes, ...]


class ChangePinCall(msgspec.Struct, frozen=True, kw_only=True, tag="change-pin"):
    """`ManagedToken.change_pin`. `pin_bytes` bytes of the new PIN follow the frame."""

    pin_bytes: int


class CountersCall(msgspec.Struct, frozen=True, tag="counters"):
    """`Token.counters`."""


class ReaderUseCall(msgspec.Struct, frozen=True, tag="reader-use"):
    """`Token.reader_use`."""


class ProbeCall(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """`Token.probe`."""

    count: int


class ScanCall(msgspec.Struct, frozen=True, kw_only=True, tag="scan"):
    """In place of `Open`: what a module shows without any login. The only call to its worker."""

    module: str


class ReinitializeCall(msgspec.Struct, frozen=True, tag="reinitialize"):
    """C_Finalize and C_Initialize."""


class CloseCall(msgspec.Struct, frozen=True, tag="close"):
    """The last call; the worker ends after it."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """The worker enters this function now."""

    function: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Answer to `Open`, `StoreCall`, `ChangePinCall`, `ReinitializeCall` and `CloseCall`."""


class InfoAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="info"):
    """Answer to `InfoCall`."""

    info: TokenInfo


class KeysAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """Answer to `KeysCall`."""

    keys: tuple[TokenKey, ...]


class SignAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="sign"):
    """Answer to `SignCall`."""

    signature: bytes


class Skipped(msgspec.Struct, frozen=True, tag="skipped"):
    """Answer to a `SignCall` that was sent ahead, behind a call that failed: it was not begun."""


class GenerateAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """Answer to `GenerateCall`."""

    key: TokenKey


class CountersAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="counters"):
    """Answer to `CountersCall`."""

    counters: tuple[KeyCounter, ...]


class ReaderUseAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="reader-use"):
    """Answer to `ReaderUseCall`."""

    use: ReaderUse | None


class ProbeAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Answer to `ProbeCall`."""

    round_trips_us: tuple[int, ...] | None


class ScanAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="scan"):
    """Answer to `ScanCall`."""

    contents: ModuleContents


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """A TokenError, to be raised again on the other side."""

    code: str
    message: str
    hint: str = ""
    ckr: int | None = None
    function: str = ""
    begun: bool = False

    @classmethod
    def of(cls, error: TokenError) -> "Failure":
        """The frame for an error."""
        return cls(
            code=error.code,
            message=error.message,
            hint=error.hint,
            ckr=error.ckr,
            function=error.function,
            begun=error.begun,
        )

    def error(self, token: str) -> TokenError:
        """The error again, naming the token as its configuration does."""
        return TokenError(
            self.code,
            f"token {token!r}: {self.message}",
            hint=self.hint,
            ckr=self.ckr,
            function=self.function,
            begun=self.begun,
        )


Call = (
    Open
    | InfoCall
    | KeysCall
    | SignCall
    | GenerateCall
    | StoreCall
    | ChangePinCall
    | CountersCall
    | ReaderUseCall
    | ProbeCall
    | ReinitializeCall
    | ScanCall
    | CloseCall
)
Answer = (
    Progress
    | Done
    | InfoAnswer
    | KeysAnswer
    | SignAnswer
    | Skipped
    | GenerateAnswer
    | CountersAnswer
    | ReaderUseAnswer
    | ProbeAnswer
    | ScanAnswer
    | Failure
)

_encoder: Final = msgspec.msgpack.Encoder()
_calls: Final[msgspec.msgpack.Decoder[Call]] = msgspec.msgpack.Decoder(Call)
_answers: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


def encode(message: Call | Answer) -> bytes:
    """Header and frame.

    Raises:
        TokenError: `token.protocol` if it would be longer than 4 MiB.
    """
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise TokenError("token.protocol", f"a message of {len(body)} bytes is longer than {MAX_FRAME_BYTES}")
    return struct.pack(">I", len(body)) + body


def frame_length(header: bytes) -> int:
    """Length of the frame behind a header of 4 bytes.

    Raises:
        TokenError: `token.protocol` if it is longer than 4 MiB.
    """
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME_BYTES:
        raise TokenError("token.protocol", f"a frame announces {length} bytes; at most {MAX_FRAME_BYTES} may come")
    return length


def decode_call(body: bytes) -> Call:
    """A frame as the worker reads it.

    Raises:
        TokenError: `token.protocol`.
    """
    try:
        return _calls.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TokenError("token.protocol", f"the supervisor sent what is no call: {error}") from error


def decode_answer(body: bytes) -> Answer:
    """A frame as the supervisor reads it.

    Raises:
        TokenError: `token.protocol`.
    """
    try:
        return _answers.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TokenError("token.protocol", f"the worker sent what is no answer: {error}") from error
