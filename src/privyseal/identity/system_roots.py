# SPDX-License-Identifier: Apache-2.0
"""The roots that this system trusts."""

import warnings
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

__all__ = ["SYSTEM_ROOTS", "system_roots"]

#: Where Debian, Red Hat and macOS keep them, PEM.
SYSTEM_ROOTS: Final = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)


def system_roots() -> tuple[bytes, ...]:
    """All of them, DER. A file that is missing or cannot be read counts for nothing."""
    found: dict[bytes, None] = {}
    for path in SYSTEM_ROOTS:
        try:
            with warnings.catch_warnings():
                # Some system roots have serial numbers that RFC 5280 forbids; that is not ours to mend.
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)
                certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError):
            continue
        found.update(dict.fromkeys(certificate.public_bytes(Encoding.DER) for certificate in certificates))
    return tuple(found)
