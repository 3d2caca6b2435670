# SPDX-License-Identifier: Apache-2.0
"""Formats of preimages that no file stands behind: nothing can be scanned, embedded or verified."""

from collections.abc import Callable
from datetime import datetime
from typing import BinaryIO

from privyseal.errors import UnsupportedInputError
from privyseal.formats.model import (
    Binding,
    Format,
    Patch,
    Preimage,
    PreimageFacts,
    Scan,
    SignatureReport,
    Signed,
    SignOptions,
    TrustAnchors,
)

__all__ = ["format_without_file"]


def format_without_file(
    *, name: str, title: str, parse_preimage: Callable[[Preimage], PreimageFacts], certificate_in_preimage: bool
) -> Format:
    """An opaque format that is for requests alone.

    Args:
        name: Of the format.
        title: In the plural, such as `bare digests`.
        parse_preimage: Reads a preimage.
        certificate_in_preimage: Whether another certificate needs another preimage, as far as anybody can tell.
    """

    def refusal() -> UnsupportedInputError:
        return UnsupportedInputError(
            "format.no_file",
            f"{title} ({name}) are no file format: nothing can be read or embedded",
            hint="leave the format to be recognised from the file",
        )

    def scan(_stream: BinaryIO, _options: SignOptions) -> Scan:
        raise refusal()

    def preimage(_scanned: Scan, _chain: tuple[bytes, ...], _options: SignOptions) -> Preimage:
        raise refusal()

    def embed(_scanned: Scan, _signed: Signed) -> Patch:
        raise refusal()

    def verify(_stream: BinaryIO, _anchors: TrustAnchors, _at: datetime) -> tuple[SignatureReport, ...]:
        raise refusal()

    return Format(
        name=name,
        title=title,
        binding=Binding.OPAQUE,
        certificate_in_preimage=certificate_in_preimage,
        detect=None,
        scan=scan,
        preimage=preimage,
        parse_preimage=parse_preimage,
        embed=embed,
        verify=verify,
    )
