# SPDX-License-Identifier: Apache-2.0
"""Object identifiers by their standards' names (RFC 5280, 5652, 3161, 5035; Authenticode)."""

from typing import Final

__all__ = [
    "ANY_EXTENDED_KEY_USAGE",
    "CABF_CODE_SIGNING",
    "CABF_EV_CODE_SIGNING",
    "DIGEST_NAMES",
    "DIGEST_OIDS",
    "ECDSA_WITH_SHA2",
    "EKU_CODE_SIGNING",
    "EKU_LIFETIME_SIGNING",
    "EKU_TIME_STAMPING",
    "ID_CONTENT_TYPE",
    "ID_COUNTERSIGNATURE",
    "ID_CT_TST_INFO",
    "ID_EC_PUBLIC_KEY",
    "ID_MESSAGE_DIGEST",
    "ID_SIGNED_DATA",
    "ID_SIGNING_CERTIFICATE",
    "ID_SIGNING_CERTIFICATE_V2",
    "RSA_ENCRYPTION",
    "RSA_WITH_SHA2",
    "SPC_INDIRECT_DATA",
    "SPC_INDIVIDUAL_SP_KEY_PURPOSE",
    "SPC_INTENT_TO_SEAL",
    "SPC_NESTED_SIGNATURE",
    "SPC_PE_IMAGE_DATA",
    "SPC_PE_IMAGE_PAGE_HASHES_V1",
    "SPC_PE_IMAGE_PAGE_HASHES_V2",
    "SPC_RFC3161_TIMESTAMP",
    "SPC_SEALING_SIGNATURE",
    "SPC_SEALING_TIMESTAMP",
    "SPC_SP_OPUS_INFO",
    "SPC_STATEMENT_TYPE",
    "WEAK_SIGNATURES",
]

# RFC 5652 (CMS) §5.1, §11; RFC 3161 §2.4.2; RFC 2634 §5.4 and RFC 5035 §3 (ESS).
ID_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
ID_CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
ID_MESSAGE_DIGEST: Final = "1.2.840.113549.1.9.4"
ID_COUNTERSIGNATURE: Final = "1.2.840.113549.1.9.6"
ID_CT_TST_INFO: Final = "1.2.840.113549.1.9.16.1.4"
ID_SIGNING_CERTIFICATE: Final = "1.2.840.113549.1.9.16.2.12"
ID_SIGNING_CERTIFICATE_V2: Final = "1.2.840.113549.1.9.16.2.47"

# RFC 8017 appendix C, RFC 5754 §3.2, §3.3, RFC 5480 §2.1.1.
RSA_ENCRYPTION: Final = "1.2.840.113549.1.1.1"
ID_EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"
RSA_WITH_SHA2: Final = {
    "sha256": "1.2.840.113549.1.1.11",
    "sha384": "1.2.840.113549.1.1.12",
    "sha512": "1.2.840.113549.1.1.13",
}
ECDSA_WITH_SHA2: Final = {
    "sha256": "1.2.840.10045.4.3.2",
    "sha384": "1.2.840.10045.4.3.3",
    "sha512": "1.2.840.10045.4.3.4",
}

# RFC 5754 §2; SHA-1 and MD5 only so that an old signature can be named in a report.
DIGEST_OIDS: Final = {
    "sha256": "2.16.840.1.101.3.4.2.1",
    "sha384": "2.16.840.1.101.3.4.2.2",
    "sha512": "2.16.840.1.101.3.4.2.3",
}
DIGEST_NAMES: Final = {oid: name for name, oid in DIGEST_OIDS.items()} | {
    "1.3.14.3.2.26": "sha1",
    "1.2.840.113549.2.5": "md5",
}

# Signature algorithms of certificates whose digest proves nothing any more (RFC 3279 §2.2, OIW).
WEAK_SIGNATURES: Final = {
    "1.2.840.113549.1.1.2": "MD2",
    "1.2.840.113549.1.1.4": "MD5",
    "1.2.840.113549.1.1.5": "SHA-1",
    "1.3.14.3.2.29": "SHA-1",
    "1.2.840.10045.4.1": "SHA-1",
}

# RFC 5280 §4.2.1.12; lifetime signing is Microsoft's: a timestamp does not prolong such a signature.
ANY_EXTENDED_KEY_USAGE: Final = "2.5.29.37.0"
EKU_CODE_SIGNING: Final = "1.3.6.1.5.5.7.3.3"
EKU_TIME_STAMPING: Final = "1.3.6.1.5.5.7.3.8"
EKU_LIFETIME_SIGNING: Final = "1.3.6.1.4.1.311.10.3.13"

# CA/Browser Forum, Baseline Requirements for Code Signing Certificates §7.1.6.1.
CABF_CODE_SIGNING: Final = "2.23.140.1.4.1"
CABF_EV_CODE_SIGNING: Final = "2.23.140.1.3"

# Windows Authenticode Portable Executable Signature Format.
SPC_INDIRECT_DATA: Final = "1.3.6.1.4.1.311.2.1.4"
SPC_STATEMENT_TYPE: Final = "1.3.6.1.4.1.311.2.1.11"
SPC_SP_OPUS_INFO: Final = "1.3.6.1.4.1.311.2.1.12"
SPC_PE_IMAGE_DATA: Final = "1.3.6.1.4.1.311.2.1.15"
SPC_INDIVIDUAL_SP_KEY_PURPOSE: Final = "1.3.6.1.4.1.311.2.1.21"
SPC_PE_IMAGE_PAGE_HASHES_V1: Final = "1.3.6.1.4.1.311.2.3.1"
SPC_PE_IMAGE_PAGE_HASHES_V2: Final = "1.3.6.1.4.1.311.2.3.2"
SPC_NESTED_SIGNATURE: Final = "1.3.6.1.4.1.311.2.4.1"
SPC_INTENT_TO_SEAL: Final = "1.3.6.1.4.1.311.2.4.2"
SPC_SEALING_SIGNATURE: Final = "1.3.6.1.4.1.311.2.4.3"
SPC_SEALING_TIMESTAMP: Final = "1.3.6.1.4.1.311.2.4.4"
SPC_RFC3161_TIMESTAMP: Final = "1.3.6.1.4.1.311.3.3.1"
