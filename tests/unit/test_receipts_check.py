# SPDX-License-Identifier: Apache-2.0
"""Receipts: proof that one RESULT stands in the pinned log, and that it is of this signature."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lying_hub import HUB, MemoryLog, make_trust
from privyseal.client.receipts import check_receipt, match_receipt, read_receipt, receipt_path
from privyseal.errors import PrivysealError
from privyseal.formats.model import Artifact, SignatureReport
from privyseal.identity.bundle import TrustBundle
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.entry import Admin, ArtifactDigest, Deny, Entry, Result, encode_entry
from privyseal.tlog.note import NoteSigner, VerifierKey, parse_note
from privyseal.tlog.quorum import PolicyLog, QuorumPolicy, policy_of_all
from privyseal.tlog.receipt import MAX_RECEIPT_BYTES, Receipt, parse_receipt
from wire_samples import key, mutated

TRUST = make_trust()
RESULT = Result(
    ts=2,
    intent=1,
    request="11" * 32,
    item=0,
    profile="release",
    key=hashlib.sha256(b"spki").hexdigest(),
    format="authenticode-pe",
    artifact=ArtifactDigest(alg="sha256", digest=hashlib.sha256(b"pe").hexdigest()),
    fence=1,
    outcome="ok",
    signature=hashlib.sha256(b"signature").hexdigest(),
)
REPORT = SignatureReport(
    subject="CN=Lab",
    spki_sha256=hashlib.sha256(b"spki").digest(),
    signature_sha256=hashlib.sha256(b"signature").digest(),
    artifact=Artifact(algorithm="sha256", digest=hashlib.sha256(b"pe").digest()),
)


def receipt_of(
    entry: Entry | bytes, *, origin: str = HUB, signer: NoteSigner | None = None, extra: bytes | None = None
) -> str:
    """The receipt of an entry that stands in a log of nine."""
    log = MemoryLog()
    for place in range(9):
        log.append(entry if place == 5 else Admin(ts=place, action="filler", bundle=""))
    checkpoint = Checkpoint(origin=origin, size=log.size, root=log.root())
    note = sign_checkpoint(checkpoint, signer or NoteSigner(name=HUB, key=TRUST.log_key))
    receipt = Receipt(index=5, proof=log.inclusion(5), checkpoint=note)
    return dataclasses.replace(receipt, extra=log.entries[5] if extra is None else extra).encode()


TEXT = receipt_of(RESULT)


def refused(text: str | bytes, *codes: str) -> None:
    with pytest.raises(PrivysealError) as caught:
        check_receipt(text, TRUST.bundle)
    assert caught.value.code in codes


def test_a_true_receipt_holds() -> None:
    checked = check_receipt(TEXT, TRUST.bundle)

    assert (checked.entry, checked.index, checked.checkpoint.size) == (RESULT, 5, 9)
    assert check_receipt(TEXT.encode(), TRUST.bundle) == checked
    match_receipt(checked, REPORT, "authenticode-pe")


def test_a_receipt_of_another_log_or_under_another_key() -> None:
    stranger = NoteSigner(name=HUB, key=key(3))

    refused(receipt_of(RESULT, origin="other.example"), "checkpoint.origin")
    refused(receipt_of(RESULT, signer=stranger), "note.unsigned")


def test_a_receipt_that_shows_another_entry_than_it_proves() -> None:
    refused(receipt_of(RESULT, extra=encode_entry(replace(RESULT, fence=2))), "proof.inclusion")
    refused(receipt_of(RESULT, extra=b""), "proof.inclusion")


@pytest.mark.parametrize(
    "entry",
    [
        Admin(ts=1, action="genesis", bundle=""),
        Deny(ts=1, client="", profile="", request="", code=""),
        replace(RESULT, outcome="failed", signature="", code="token.failed"),
        replace(RESULT, outcome="not-used", signature=""),
    ],
    ids=["admin", "deny", "failed", "not-used"],
)
def test_a_receipt_of_what_is_no_signature(entry: Entry) -> None:
    refused(receipt_of(entry), "receipt.not_a_result")


def test_a_receipt_of_what_is_no_entry() -> None:
    refused(receipt_of(b"hello"), "entry.malformed")
    refused(receipt_of(encode_entry(RESULT).replace(b":", b": ", 1)), "entry.not_canonical")


@given(st.data())
def test_changed_bytes_prove_nothing_else(data: st.DataObject) -> None:
    spoilt = data.draw(mutated(TEXT.encode()))
    try:
        checked = check_receipt(spoilt, TRUST.bundle)
    except PrivysealError:
        return
    assert (checked.entry, checked.index) == (RESULT, 5)


@given(st.integers(0, len(TEXT) - 1))
def test_a_receipt_that_ends_early_is_refused(length: int) -> None:
    refused(TEXT[:length], "receipt.malformed", "note.malformed", "note.unsigned")


@given(st.binary(max_size=200))
def test_noise_is_no_receipt(noise: bytes) -> None:
    refused(noise, "receipt.malformed")


@pytest.mark.parametrize("bomb", ["x", "\n", "index 1\n", "AAAA\n"])
def test_a_receipt_has_a_largest_size(bomb: str) -> None:
    refused(bomb * (MAX_RECEIPT_BYTES // len(bomb) + 1), "receipt.malformed")
    refused("c2sp.org/tlog-proof@v1\n" + bomb * (MAX_RECEIPT_BYTES // len(bomb) - 20), "receipt.malformed")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"spki_sha256": bytes(32)}, "key"),
        ({"signature_sha256": bytes(32)}, "signature"),
        ({"artifact": Artifact(algorithm="sha256", digest=bytes(32))}, "artifact digest"),
        ({"artifact": Artifact(algorithm="sha384", digest=REPORT.artifact.digest)}, "artifact digest"),
    ],
    ids=["key", "signature", "digest", "algorithm"],
)
def test_a_receipt_of_another_signature_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(PrivysealError) as caught:
        match_receipt(check_receipt(TEXT, TRUST.bundle), dataclasses.replace(REPORT, **changes), "authenticode-pe")

    assert caught.value.code == "receipt.mismatch"
    assert f"the {what} in the file" in caught.value.message


def test_a_receipt_of_another_format_is_refused() -> None:
    with pytest.raises(PrivysealError) as caught:
        match_receipt(check_receipt(TEXT, TRUST.bundle), REPORT, "authenticode-msi")

    assert caught.value.code == "receipt.mismatch"


def test_where_a_receipt_lies(tmp_path: Path) -> None:
    path = receipt_path(tmp_path / "app.exe")
    assert path == tmp_path / "app.exe.tlog-proof"
    with pytest.raises(PrivysealError) as caught:
        read_receipt(path)
    assert caught.value.code == "file.unreadable"

    path.write_text(TEXT)

    assert check_receipt(read_receipt(path), TRUST.bundle).entry == RESULT


WITNESS = Cosigner(name="w", key=key(5))


def cosigned_receipt(*witnesses: Cosigner) -> str:
    receipt = parse_receipt(TEXT)
    note = parse_note(receipt.checkpoint)
    signatures = (*note.signatures, *(one.sign(note.text, 7) for one in witnesses))
    return dataclasses.replace(receipt, checkpoint=dataclasses.replace(note, signatures=signatures).encode()).encode()


def policy_of(*logs: VerifierKey) -> QuorumPolicy:
    return dataclasses.replace(policy_of_all((WITNESS.verifier,)), logs=tuple(PolicyLog(key=one) for one in logs))


LOG = NoteSigner(name=HUB, key=TRUST.log_key).verifier
OTHER_LOG = NoteSigner(name=HUB, key=key(6)).verifier


def test_a_quorum_policy_wants_its_witnesses_cosignatures() -> None:
    text = cosigned_receipt(WITNESS)

    for bundle, policy in ((TRUST.bundle, policy_of()), (TRUST.bundle, policy_of(LOG)), (None, policy_of(LOG))):
        checked = check_receipt(text, bundle, policy)
        assert (checked.entry, checked.cosigned) == (RESULT, (f"w+{WITNESS.verifier.key_id.hex()}",))
    assert check_receipt(text, TRUST.bundle).cosigned == ()


@pytest.mark.parametrize(
    ("text", "bundle", "policy", "code"),
    [
        (TEXT, TRUST.bundle, policy_of(), "quorum.not_met"),
        (cosigned_receipt(Cosigner(name="w", key=key(4))), TRUST.bundle, policy_of(), "quorum.not_met"),
        (cosigned_receipt(WITNESS), TRUST.bundle, policy_of(OTHER_LOG), "note.unsigned"),
        (cosigned_receipt(WITNESS), None, policy_of(OTHER_LOG), "note.unsigned"),
        (cosigned_receipt(WITNESS), None, policy_of(), "checkpoint.origin"),
        (cosigned_receipt(WITNESS), make_trust().bundle, policy_of(LOG), "note.unsigned"),
    ],
    ids=["none", "another witness", "another log", "another log, no bundle", "no log", "another bundle"],
)
def test_what_a_quorum_policy_does_not_take(
    text: str, bundle: TrustBundle | None, policy: QuorumPolicy, code: str
) -> None:
    with pytest.raises(PrivysealError) as caught:
        check_receipt(text, bundle, policy)

    assert caught.value.code == code
    assert "log cosign" in caught.value.hint or code != "quorum.not_met"
