# SPDX-License-Identifier: Apache-2.0
"""What the values of SignTool's flags mean, and how certificates are shown; nothing of the network is needed here."""

import datetime as dt
import re
from collections.abc import Iterator
from typing import Final

from privyseal.cli.signtool.arguments import Arguments
from privyseal.client.certificate_choice import common_name
from privyseal.errors import ConfigError
from privyseal.pki import oids
from privyseal.pki.mechanism import hash_algorithm
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.clock import system_clock

__all__ = ["SYSTEM_COMPONENT", "certificate_lines", "digest_algorithm", "hash_of", "now", "number", "usage_of"]

#: 1.3.6.1.4.1.311.10.3.6, "Windows System Component Verification".
SYSTEM_COMPONENT: Final = "1.3.6.1.4.1.311.10.3.6"
_USAGES: Final = {
    "code signing": oids.EKU_CODE_SIGNING,
    "lifetime signing": oids.EKU_LIFETIME_SIGNING,
    "windows system component verification": SYSTEM_COMPONENT,
}
#: Windows' certificate dialog puts spaces, and a mark for the direction of writing, into what people copy.
_BETWEEN_DIGITS: Final = re.compile("[\\s:\u200e]")


def now() -> dt.datetime:
    """This machine's time."""
    return dt.datetime.fromtimestamp(system_clock() / 1000, dt.UTC)


def hash_of(text: str, flag: str) -> str:
    """A SHA-1 hash in hex.

    Raises:
        ConfigError: `signtool.hash`.
    """
    digits = _BETWEEN_DIGITS.sub("", text).lower()
    if not re.fullmatch(r"[0-9a-f]{40}", digits):
        raise ConfigError(
            "signtool.hash",
            f"/{flag} {text} is not a SHA1 hash",
            hint="40 hexadecimal digits, as certificates show them",
        )
    return digits


def usage_of(text: str) -> str:
    """The OID of an extended key usage.

    Raises:
        ConfigError: `signtool.usage`.
    """
    if re.fullmatch(r"[0-2](\.[0-9]+)+", text):
        return text
    if text.casefold() not in _USAGES:
        names = ", ".join(f'"{name}"' for name in _USAGES)
        raise ConfigError("signtool.usage", f"/u {text} is not an OID", hint=f"give the OID; known by name are {names}")
    return _USAGES[text.casefold()]


def number(arguments: Arguments, name: str) -> int:
    """The value of a flag that names a signature.

    Raises:
        ConfigError: `signtool.number`.
    """
    text = arguments.value(name)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigError("signtool.number", f"/{name} {text} is not a number", hint="the first signature is number 0")
    return int(text)


def digest_algorithm(text: str) -> str:
    """The name of a digest algorithm, as Privyseal writes it.

    Raises:
        UnsupportedInputError: `digest.unsupported`, for weak ones, too.
    """
    name = text.lower().replace("-", "")
    hash_algorithm(name)
    return name


def certificate_lines(encoded: bytes, indent: str) -> Iterator[str]:
    """Who has a certificate, from whom, and until when."""
    certificate = parse_certificate(encoded)
    yield f"{indent}Issued to: {common_name(certificate.subject)}"
    yield f"{indent}Issued by: {common_name(certificate.issuer)}"
    yield f"{indent}Expires:   {certificate.not_after.astimezone(dt.UTC):%a %b %d %H:%M:%S %Y} UTC"
