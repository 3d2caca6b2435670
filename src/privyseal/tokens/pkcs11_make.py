# SPDX-License-Identifier: Apache-2.0
"""New objects on a token: key pairs that never leave it, and certificates (PKCS#11 v3.1 §4.6, §4.9, §5.18).

Templates hold what is needed and no more: some tokens refuse a whole template for one attribute that they do not know.
"""

from typing import Final

from privyseal.errors import MalformedInputError, TokenError
from privyseal.pki import der
from privyseal.pki.x509 import parse_certificate
from privyseal.ports.token import KeyKind
from privyseal.tokens.cryptoki import Module, Template
from privyseal.tokens.cryptoki_types import Attribute, ObjectClass, ulong
from privyseal.tokens.driver import Progress
from privyseal.tokens.pkcs11_keys import PrivateKeyObject, read_certificates
from privyseal.tokens.token_objects import CURVE_PARAMS, free_key_id, key_taken

__all__ = ["create_certificates", "generate_key_pair"]

_CKM_RSA_PKCS_KEY_PAIR_GEN: Final = 0x0000
_CKM_EC_KEY_PAIR_GEN: Final = 0x1040
_CKC_X_509: Final = 0
_INTEGER_TAG: Final = 0x02
_TRUE: Final = b"\x01"
_FALSE: Final = b"\x00"
_F4: Final = b"\x01\x00\x01"
_RSA_BITS: Final[dict[KeyKind, int]] = {"rsa2048": 2048, "rsa3072": 3072, "rsa4096": 4096}


def generate_key_pair(
    module: Module, session: int, *, kind: KeyKind, key_id: bytes, label: str, progress: Progress
) -> bytes:
    """Make a key pair in a session that may write.

    Args:
        module: The loaded module.
        session: A session that may write, logged in.
        kind: What key.
        key_id: CKA_ID; empty for the first free one.
        label: CKA_LABEL.
        progress: Told before the token begins.

    Returns:
        Its CKA_ID.

    Raises:
        TokenError: `token.key_exists`; `token.key_extractable` if the token did not keep to the template.
    """
    if not key_id:
        key_id = free_key_id(lambda candidate: bool(module.find(session, (Attribute.ID, candidate))))
    elif module.find(session, (Attribute.ID, key_id)):
        raise key_taken(f"CKA_ID {key_id.hex()}")
    if module.find(session, (Attribute.CLASS, ulong(ObjectClass.PRIVATE_KEY)), (Attribute.LABEL, label.encode())):
        raise key_taken(f"the label {label!r}")
    named: Template = ((Attribute.TOKEN, _TRUE), (Attribute.LABEL, label.encode()), (Attribute.ID, key_id))
    mechanism, public = _kind(kind)
    private: Template = (
        (Attribute.PRIVATE, _TRUE),
        (Attribute.SENSITIVE, _TRUE),
        (Attribute.EXTRACTABLE, _FALSE),
        (Attribute.SIGN, _TRUE),
    )
    progress("C_GenerateKeyPair")
    _, handle = module.generate_key_pair(
        session, mechanism, (*named, (Attribute.VERIFY, _TRUE), *public), (*named, *private)
    )
    # A module may take a template and not keep to it.
    if module.attribute(session, handle, Attribute.EXTRACTABLE) == _TRUE:
        raise TokenError(
            "token.key_extractable",
            f"the token made key {key_id.hex()} extractable although it was told not to",
            hint="delete the key with the vendor's tool; a key of this token can leave it",
        )
    return key_id


def _kind(kind: KeyKind) -> tuple[int, Template]:
    """The mechanism, and what the public key's template says of the kind."""
    if bits := _RSA_BITS.get(kind):
        sizes = (Attribute.MODULUS_BITS, ulong(bits)), (Attribute.PUBLIC_EXPONENT, _F4)
        return _CKM_RSA_PKCS_KEY_PAIR_GEN, sizes
    return _CKM_EC_KEY_PAIR_GEN, ((Attribute.EC_PARAMS, CURVE_PARAMS[kind]),)


def create_certificates(
    module: Module, session: int, *, key: PrivateKeyObject, chain: tuple[bytes, ...], progress: Progress
) -> None:
    """Put a key's certificates (DER, leaf first) on the token beside those it has; those it has already are left.

    Issuers come first: if the token's memory ends, no leaf stands there without them.
    """
    present = {certificate.der for certificate in read_certificates(module, session)}
    for encoded in reversed(chain):
        if encoded not in present:
            is_leaf = encoded == chain[0]
            progress("C_CreateObject")
            module.create_object(session, _certificate(encoded, key if is_leaf else None))


def _certificate(encoded: bytes, key: PrivateKeyObject | None) -> Template:
    try:
        certificate = parse_certificate(encoded)
    except MalformedInputError as error:
        raise TokenError("token.certificate", error.message) from error
    number = certificate.serial_number
    label = certificate.subject if key is None else key.token_key.label
    template: Template = (
        (Attribute.CLASS, ulong(ObjectClass.CERTIFICATE)),
        (Attribute.CERTIFICATE_TYPE, ulong(_CKC_X_509)),
        (Attribute.TOKEN, _TRUE),
        (Attribute.PRIVATE, _FALSE),
        (Attribute.LABEL, label.encode()),
        (Attribute.SUBJECT, certificate.subject_name),
        (Attribute.ISSUER, certificate.issuer_name),
        (Attribute.SERIAL_NUMBER, der.encode_tlv(_INTEGER_TAG, number.to_bytes(number.bit_length() // 8 + 1, "big"))),
        (Attribute.VALUE, encoded),
    )
    return template if key is None else (*template, (Attribute.ID, key.token_key.key_id))
