# SPDX-License-Identifier: Apache-2.0
"""One flipped bit anywhere in a signed file: we refuse whatever osslsigncode or signify refuses.

About two hundred bits, chosen by seed, in each part of four files: signed and timestamped by us with RSA and with
ECDSA, with page hashes by osslsigncode, and twice by Microsoft. A file passes with us if nothing is wrong and every
signature still has its timestamp, as `verify --require-timestamp` asks. Where judges differ, the difference must be
one of those that are listed here.
"""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from authenticode_judges import accepted_by_osslsigncode, accepted_by_signify
from inputs import MICROSOFT_SIGNED, UNSIGNED
from interop_tools import run_program
from microsoft_roots import microsoft_roots, pem
from pe_samples import apply_patch, verify
from pki_samples import Signer, authority, make_token, signer, tsa
from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import PE, spc
from privyseal.formats.authenticode.layout import read_layout
from privyseal.formats.model import Signed, SignOptions, TrustAnchors
from privyseal.pki import cms, der, oids

pytestmark = pytest.mark.interop

FLIPS_IN_A_PART = 8
OWN_ROOTS = TrustAnchors(code_signing=(authority().der,), time_stamping=(tsa().root.der,))

#: Our reason where we refuse and both others accept, and why we insist.
STRICTER = {
    "authenticode.trailing_bytes": "what follows a SignedData is covered by nothing (CVE-2013-3900)",
    "cms.digest_algorithm": "parameters that an algorithm does not know are covered by nothing (RFC 5754 §2)",
    "cms.signature_algorithm": "the same, beside the signature value",
    "cms.version": "a version that does not go with the structure (RFC 5652 §5.1, §5.3)",
}
#: The part that was changed where we accept and another judge refuses, and why that is sound.
MORE_LENIENT = {
    "attribute certificates": "they say of a TSA's clock what we do not ask, and stand in no path",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A signed file, the roots of its chains, and how many timestamps it has."""

    name: str
    data: bytes
    anchors: TrustAnchors
    timestamps: int


def timestamped(image: bytes, by: Signer) -> bytes:
    """The token must be over the very signature that goes into the file: an ECDSA one is another each time."""
    options = SignOptions()
    scanned = PE.scan(io.BytesIO(image), options)
    preimage = PE.preimage(scanned, by.chain, options)
    signature = by.sign(preimage.signed)
    token = make_token(signature)
    whole = Signed(preimage=preimage, signature=signature, chain=by.chain, timestamp_token=token)
    return apply_patch(image, PE.embed(scanned, whole))


def with_page_hashes(image: bytes, folder: Path) -> bytes:
    by = signer("rsa")
    files = {"chain.pem": by.leaf.pem + by.intermediate.pem, "key.pem": by.leaf.key_pem, "plain.exe": image}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    status, said = run_program(
        "osslsigncode", "sign", "-ph", "-h", "sha256", "-certs", folder / "chain.pem", "-key", folder / "key.pem",
        "-in", folder / "plain.exe", "-out", folder / "paged.exe",
    )  # fmt: skip
    assert status == 0, said
    return (folder / "paged.exe").read_bytes()


@pytest.fixture(params=["rsa", "ecdsa", "page hashes", "Microsoft"])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Sample:
    name: str = request.param
    anchors, timestamps = OWN_ROOTS, 1
    if name == "Microsoft":
        data, anchors, timestamps = MICROSOFT_SIGNED[10].read(), microsoft_roots(), 2
    elif name == "page hashes":
        data, timestamps = with_page_hashes(UNSIGNED[0].read(), tmp_path), 0
    elif name == "ecdsa":
        data = timestamped(UNSIGNED[14].read(), signer("ec"))
    else:
        data = timestamped(UNSIGNED[2].read(), signer("rsa"))
    return Sample(name=name, data=data, anchors=anchors, timestamps=timestamps)


def signed_datas(data: bytes) -> Iterator[tuple[bytes, cms.SignedData]]:
    """Every SignedData of a file, encoded and read: the first entry's, nested ones, and timestamp tokens."""
    layout, _ = read_layout(io.BytesIO(data))
    waiting = [der.read_tlv(data, layout.data_size_bytes + 8, "the signature").der]
    while waiting:
        encoded = waiting.pop(0)
        signed_data = cms.parse_signed_data(encoded)
        yield encoded, signed_data
        for oid in (oids.SPC_NESTED_SIGNATURE, oids.SPC_RFC3161_TIMESTAMP):
            waiting += cms.attribute_values(signed_data.signer_infos[0].unsigned_attributes, oid)


def parts(data: bytes) -> dict[str, list[int]]:
    """The offsets that belong to each part of a file."""
    layout, _ = read_layout(io.BytesIO(data))
    table = layout.data_size_bytes
    found = {
        "headers": list(range(layout.size_of_headers)),
        "sections": list(range(layout.size_of_headers, table)),
        "table": [*range(table, table + 8), *range(len(data) - 8, len(data))],
    }

    def add(part: str, *contents: bytes) -> None:
        for content in contents:
            begin = data.index(content)
            found.setdefault(part, []).extend(range(begin, begin + len(content)))

    for number, (encoded, signed_data) in enumerate(signed_datas(data)):
        signer_info = signed_data.signer_infos[0]
        for certificate in signed_data.certificates:
            is_x509 = certificate[0] == der.TAG_SEQUENCE  # the others are attribute certificates (RFC 5652 §10.2.2)
            add("certificates" if is_x509 else "attribute certificates", certificate)
        add("signature", signer_info.signature, signer_info.signed_attributes[4:])
        if signed_data.content_type == oids.ID_CT_TST_INFO:
            add("timestamp", encoded)
        elif number:
            add("nested signature", encoded)
        else:
            page_hashes = spc.parse_page_hashes(spc.parse_indirect_data(signed_data.content).data)
            add("page hashes", *(() if page_hashes is None else (page_hashes.records,)))
    return {part: offsets for part, offsets in found.items() if offsets}


def our_reason(sample: Sample, changed: bytes) -> str:
    """Empty if we accept it."""
    try:
        reports = verify(changed, sample.anchors)
    except (MalformedInputError, UnsupportedInputError) as error:
        return error.code
    problems = [report.problem_code for report in reports if report.problem_code]
    if not reports or problems:
        return problems[0] if problems else "file.unsigned"
    times = sum(report.timestamped_at is not None for report in reports)
    return "" if times == sample.timestamps else "timestamp.required"


def test_a_flipped_bit_is_refused_as_others_refuse_it(sample: Sample, tmp_path: Path) -> None:
    path, roots = tmp_path / "changed.exe", tmp_path / "roots.pem"
    roots.write_bytes(pem(sample.anchors))
    unread = set(parts(sample.data).get("attribute certificates", ()))

    def theirs(changed: bytes) -> tuple[bool, bool]:
        path.write_bytes(changed)
        by_signify = accepted_by_signify(changed, (*sample.anchors.code_signing, *sample.anchors.time_stamping))
        return accepted_by_osslsigncode(path, roots, timestamped=sample.timestamps > 0), by_signify

    assert (our_reason(sample, sample.data), theirs(sample.data)) == ("", (True, True))
    seeded = random.Random(sample.name)
    for part, offsets in parts(sample.data).items():
        for _ in range(FLIPS_IN_A_PART):
            offset = seeded.choice(offsets)
            changed = bytearray(sample.data)
            changed[offset] ^= 1 << seeded.randrange(8)
            reason, (osslsigncode, by_signify) = our_reason(sample, bytes(changed)), theirs(bytes(changed))

            where = f"{part} at {offset}: osslsigncode {osslsigncode}, signify {by_signify}, we {reason or 'accept'}"
            if not reason and not (osslsigncode and by_signify):
                assert ("attribute certificates" if offset in unread else part) in MORE_LENIENT, where
            if reason and osslsigncode and by_signify:
                assert reason in STRICTER, where
