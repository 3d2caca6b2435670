# SPDX-License-Identifier: Apache-2.0
"""Timestamps by `openssl ts`: it answers our requests, we verify its tokens, others verify them in our files."""

import io
from pathlib import Path

import pytest

from authenticode_judges import accepted_by_osslsigncode, accepted_by_signify, accepted_by_yara
from inputs import UNSIGNED
from pe_samples import apply_patch, verify
from pki_samples import authority, signer, tsa
from privyseal.errors import MalformedInputError, VerificationError
from privyseal.formats.authenticode import PE
from privyseal.formats.authenticode.pe import embed
from privyseal.formats.model import Signed, SignOptions, TrustAnchors
from privyseal.pki import tsp
from tsa_samples import OpensslTsa

pytestmark = pytest.mark.interop

ROOTS = (tsa().root.der,)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("ess", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("certs", [True, False])
def test_tokens_of_openssl_hold(certs: bool, ess: str, algorithm: str, tmp_path: Path) -> None:  # noqa: FBT001
    local = OpensslTsa(tmp_path, certs=certs, ess=ess, ordering="yes" if certs else "no")

    token = local.token(b"signature", algorithm)

    gen_time = tsp.verify_token(token, b"signature", ROOTS, nonce=1 << 62)
    assert gen_time == tsp.parse_token(token).gen_time
    with pytest.raises(VerificationError) as caught:
        tsp.verify_token(token, b"another", ROOTS)
    assert caught.value.code == "tsp.imprint"


def test_openssl_refuses_what_we_refuse(tmp_path: Path) -> None:
    # With certs= the token holds the root, too: a changed copy that is not needed would be ignored by us alone.
    local = OpensslTsa(tmp_path, certs=False)
    token = local.token(b"signature")

    assert local.accepts(token, b"signature")
    for fraction in range(1, 60):
        offset = len(token) * fraction // 60
        changed = token[:offset] + bytes((token[offset] ^ 0x10,)) + token[offset + 1 :]
        try:
            tsp.verify_token(changed, b"signature", ROOTS)
        except (MalformedInputError, VerificationError):
            continue
        else:
            assert local.accepts(changed, b"signature"), f"we accept a change at {offset} that openssl refuses"


@pytest.mark.parametrize("certs", [True, False])
@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_timestamped_signature_holds_for_every_judge(kind: str, certs: bool, tmp_path: Path) -> None:  # noqa: FBT001
    by = signer(kind)
    image = UNSIGNED[14].read()
    scanned = PE.scan(io.BytesIO(image), SignOptions())
    preimage = PE.preimage(scanned, by.chain, SignOptions())
    signature = by.sign(preimage.signed)
    token = OpensslTsa(tmp_path, certs=certs).token(signature)

    whole = Signed(preimage=preimage, signature=signature, chain=by.chain, timestamp_token=token)
    signed = apply_patch(image, embed(scanned, whole))

    path, roots = tmp_path / "signed.exe", tmp_path / "roots.pem"
    path.write_bytes(signed)
    roots.write_bytes(authority().pem + tsa().root.pem)
    assert accepted_by_osslsigncode(path, roots, timestamped=True)
    assert accepted_by_signify(signed, (authority().der, *ROOTS))
    assert accepted_by_yara(signed)
    anchors = TrustAnchors(code_signing=(authority().der,), time_stamping=ROOTS)
    (report,) = verify(signed, anchors)
    assert report.problem == ""
    assert report.timestamped_at == tsp.parse_token(token).gen_time
