# SPDX-License-Identifier: Apache-2.0
"""Signing keys and certificates as a PKCS#11 module shows them (PKCS#11 v3.1 §4)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from privyseal.ports.token import TokenKey
from privyseal.tokens.cryptoki import Module
from privyseal.tokens.cryptoki_types import Attribute, ObjectClass, ulong
from privyseal.tokens.token_objects import TokenCertificate, chain_for, ec_spki, read_certificate, rsa_spki

__all__ = ["PrivateKeyObject", "read_certificates", "read_keys"]

_CKK_RSA: Final = 0
_CKK_EC: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKeyObject:
    """A private key that may sign: its handle in this session, and what the Token port says of it."""

    handle: int
    token_key: TokenKey
    always_authenticate: bool


def read_keys(module: Module, session: int) -> tuple[PrivateKeyObject, ...]:
    """The signing keys in the order of their CKA_ID. Those without a public key anywhere are left out."""
    private = module.find(session, (Attribute.CLASS, ulong(ObjectClass.PRIVATE_KEY)), (Attribute.SIGN, b"\x01"))
    certificates = read_certificates(module, session)
    keys = [_read_key(module, session, handle, certificates) for handle in private]
    return tuple(sorted((key for key in keys if key), key=lambda key: key.token_key.key_id))


def read_certificates(module: Module, session: int) -> tuple[TokenCertificate, ...]:
    """The certificates that can be read; they need no login unless they are private objects."""
    certificates = []
    for handle in module.find(session, (Attribute.CLASS, ulong(ObjectClass.CERTIFICATE))):
        value = module.attribute(session, handle, Attribute.VALUE)
        key_id = module.attribute(session, handle, Attribute.ID)
        if value and (certificate := read_certificate(key_id or b"", value)):
            certificates.append(certificate)
    return tuple(certificates)


def _read_key(
    module: Module, session: int, handle: int, certificates: tuple[TokenCertificate, ...]
) -> PrivateKeyObject | None:
    """A private key with its public key and chain; None if the token shows no public key for it."""
    key_id = module.attribute(session, handle, Attribute.ID) or b""
    spki = _public_key(module, session, handle, key_id)
    chain = chain_for(key_id=key_id, spki=spki, certificates=certificates)
    if spki is None:
        if not chain:
            return None
        spki = chain[0].spki
    label = module.attribute(session, handle, Attribute.LABEL) or b""
    always = module.attribute(session, handle, Attribute.ALWAYS_AUTHENTICATE)
    return PrivateKeyObject(
        handle=handle,
        token_key=TokenKey(
            key_id=key_id,
            label=label.decode("utf-8", errors="replace"),
            spki=spki,
            certificates=tuple(item.der for item in chain),
        ),
        always_authenticate=always == b"\x01",
    )


def _public_key(module: Module, session: int, handle: int, key_id: bytes) -> bytes | None:
    """From the private key's own attributes, or from the public key object with the same CKA_ID."""
    kind = module.attribute(session, handle, Attribute.KEY_TYPE)
    build: Callable[[bytes | None, bytes | None], bytes | None]
    names: tuple[int, int]
    if kind == ulong(_CKK_RSA):
        build, names = rsa_spki, (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
    elif kind == ulong(_CKK_EC):
        build, names = ec_spki, (Attribute.EC_PARAMS, Attribute.EC_POINT)
    else:
        return None
    holders = [handle]
    if key_id:
        holders += module.find(session, (Attribute.CLASS, ulong(ObjectClass.PUBLIC_KEY)), (Attribute.ID, key_id))
    for holder in holders:
        first, second = (module.attribute(session, holder, name) for name in names)
        if spki := build(first, second):
            return spki
    return None
