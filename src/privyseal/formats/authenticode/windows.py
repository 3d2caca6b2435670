# SPDX-License-Identifier: Apache-2.0
"""What Windows would say of a signature, as one honest sentence, derived from our findings.

Windows itself is not asked: its store of roots, its revocation lists and its policies are its own.
"""

from typing import Final

from privyseal.formats.model import SignatureKind, SignatureReport
from privyseal.pki.x509 import parse_certificate

__all__ = ["windows_verdict"]

_UNASKED: Final = "its own roots and revocation were not asked"

#: The first of these that was found decides; names of results are those of winerror.h.
_REFUSALS: Final = {
    "authenticode.digest_mismatch": "refuses it, because the file is not the one that was signed (TRUST_E_BAD_DIGEST)",
    "cms.message_digest": "refuses it, because the signature is over other content (TRUST_E_BAD_DIGEST)",
    "signature.invalid": "refuses it, because the signature value is wrong (NTE_BAD_SIGNATURE)",
    "chain.expired": "refuses it, because its certificate has expired and no timestamp prolongs it (CERT_E_EXPIRED)",
    "chain.not_yet_valid": "refuses it, because a certificate is not valid yet at that time (CERT_E_EXPIRED)",
    "chain.eku": "refuses it, because a certificate is not for this purpose (CERT_E_WRONG_USAGE)",
    "chain.untrusted": "refuses it unless it knows the root itself (CERT_E_UNTRUSTEDROOT, CERT_E_CHAINING)",
    "chain.weak_key": "refuses it where weak keys are blocked",
    "chain.weak_digest": "refuses it where SHA-1 certificates are blocked",
}
#: What Windows says of these alone.
_TOLERATED: Final = {
    "cms.weak_digest": "may still accept it where old digests are not blocked; whether this one fits was not looked at",
    "authenticode.page_hash_mismatch": "may accept the file and stop it while it runs, where page hashes are enforced",
    "authenticode.trailing_bytes": "accepts it by default, and refuses it where EnableCertPaddingCheck is set",
}


def windows_verdict(report: SignatureReport) -> str:
    """The sentence for one signature."""
    # Programs that ask Windows without saying more hear of the first signature only.
    windows = "Windows" if report.kind is SignatureKind.PRIMARY else "Windows, if it looks at this one at all,"
    found = {one.code for one in report.problems}
    # A timestamp whose root we do not know may well be one that Windows knows.
    if any(one.problem_code in found - {"chain.untrusted"} for one in report.timestamps):
        return f"{windows} refuses it, because its timestamp does not hold (TRUST_E_TIME_STAMP)"
    for code, sentence in _REFUSALS.items():
        if code in found:
            return f"{windows} {sentence}"
    for problem in report.problems:
        if problem.code not in _TOLERATED:
            return f"{windows} most likely refuses it: {problem.message}"
    for code, sentence in _TOLERATED.items():
        if code in found:
            return f"{windows} {sentence}"
    leaf, root = (parse_certificate(report.chain[place]) for place in (0, -1))
    is_lifetime = any(one.code == "certificate.lifetime_signing" for one in report.warnings)
    ends = report.timestamped_at is None or is_lifetime
    until = f" until {leaf.not_after:%Y-%m-%d}" if ends else ""
    return f"{windows} accepts it{until} where it trusts {root.subject}; {_UNASKED}"
