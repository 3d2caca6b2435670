# SPDX-License-Identifier: Apache-2.0
"""SignedData without a signature as other programs may make them: more signed attributes, in another order."""

from dataclasses import replace

from privyseal.pki import cms, der

__all__ = ["with_attributes"]

_SIGNING_TIME = cms.Attribute(type="1.2.840.113549.1.9.5", values=(der.encode_tlv(0x17, b"261125120000Z"),))


def with_attributes(unfinished: bytes, *, reverse: bool = False) -> bytes:
    """The same with a signingTime, which ours never have; in DER's order, or in the reverse."""
    parsed = cms.parse_signed_data(unfinished)
    (signer_info,) = parsed.signer_infos
    there = cms.read_signed_attributes(signer_info.signed_attributes)
    encoded = cms.encode_signed_attributes((*there, _SIGNING_TIME))
    if reverse:
        content = der.children(der.read_single(encoded, "attributes"), "attributes")
        encoded = der.encode_tlv(der.TAG_SET, b"".join(one.der for one in reversed(content)))
    return cms.encode_signed_data(replace(parsed, signer_infos=(replace(signer_info, signed_attributes=encoded),)))
