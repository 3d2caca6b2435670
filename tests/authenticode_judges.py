# SPDX-License-Identifier: Apache-2.0
"""Verifiers of Authenticode that we did not write, each asked one question: does every signature of this file hold?

What they cannot judge: LIEF and yara know no trust and pass wrong page hashes; osslsigncode refuses more than one entry
in the certificate table; sbverify knows SHA-256 only, sees no nested signature, ends well if any entry holds, and
checks no trust once a signature carries more than the signer's certificate.
"""

import io
import re
from pathlib import Path

import lief
import yara
from signify.authenticode import AuthenticodeFile
from signify.exceptions import SignifyError
from signify.x509 import Certificate, CertificateStore

from interop_tools import run_program

__all__ = [
    "accepted_by_lief",
    "accepted_by_osslsigncode",
    "accepted_by_sbverify",
    "accepted_by_signify",
    "accepted_by_yara",
    "entries_for_sbverify",
]

#: Beside its own errors it lets through what its parsers raise for broken structures.
_REFUSALS_OF_SIGNIFY = (SignifyError, ValueError, OSError, LookupError, TypeError, AttributeError, RuntimeError)

_RULE = yara.compile(
    source="""
import "pe"
rule all_signatures_hold {
  condition:
    pe.number_of_signatures > 0
    and for all number in (0..pe.number_of_signatures - 1): (pe.signatures[number].verified)
}
"""
)


def accepted_by_osslsigncode(
    path: Path,
    root_pem: Path,
    *,
    timestamped: bool = False,
    signatures: int | None = None,
    page_hashes: bool = False,
) -> bool:
    """It ends well if any signature holds, so all are counted; a wrong CheckSum is no fault of the signature."""
    # It would ask for revocation lists on the network, and refuse without.
    roots = ("-CAfile", root_pem, "-TSA-CAfile", root_pem)
    _, said = run_program("osslsigncode", "verify", "-ignore-crl", *roots, "-in", path)
    counted = re.search(r"^Number of verified signatures: (\d+)$", said, re.MULTILINE)
    good = said.count("\nSignature verification: ok")
    complaints = [
        line for line in said.splitlines() if re.search(r"MISMATCH|failed", line) and not line.startswith("PE checksum")
    ]
    timestamps = said.count("Timestamp Server Signature verification: ok")
    return (
        counted is not None
        and int(counted.group(1)) == good > 0
        and signatures in {None, good}
        and not complaints
        and said.rstrip().endswith("Succeeded")
        and (timestamps == good if timestamped else True)
        and ("Calculated page hash" in said) >= page_hashes
    )


def accepted_by_signify(data: bytes, roots: tuple[bytes, ...]) -> bool:
    """With chains to these roots, for code and for timestamps."""
    store = CertificateStore([Certificate.from_der(root) for root in roots], trusted=True)
    try:
        results = AuthenticodeFile.from_stream(io.BytesIO(data)).verify(
            trusted_certificate_store=store, multi_verify_mode="all"
        )
    except _REFUSALS_OF_SIGNIFY:
        return False
    return bool(results)


def accepted_by_lief(data: bytes) -> bool:
    """Digest and signature; LIEF knows no trust."""
    image = lief.PE.parse(io.BytesIO(data))
    return image is not None and image.verify_signature() == lief.PE.Signature.VERIFICATION_FLAGS.OK


def accepted_by_yara(data: bytes) -> bool:
    """Digest and signature; yara knows no trust."""
    return bool(_RULE.match(data=data))


def accepted_by_sbverify(path: Path, signer_pem: Path) -> bool:
    """As UEFI firmware would: whether an entry of the certificate table is this signer's."""
    status, said = run_program("sbverify", "--cert", signer_pem, path)
    return status == 0 and "Signature verification OK" in said


def entries_for_sbverify(path: Path) -> int:
    """How many entries of the certificate table it finds."""
    return len(re.findall(r"(?m)^signature \d+$", run_program("sbverify", "--list", path)[1]))
