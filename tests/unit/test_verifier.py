# SPDX-License-Identifier: Apache-2.0
"""`Verifier`: many files with the same roots, receipts with a bundle given by hand, and what may be required."""

import dataclasses
import hashlib
import io
from pathlib import Path

import pytest

from lying_hub import HUB, MemoryLog, make_trust
from pe_samples import ANCHORS, make_pe, sign
from pki_samples import NOW, authority, make_token, signer, tsa
from privyseal.client.receipts import receipt_path
from privyseal.client.verifying import Verifier, VerifyOptions, VerifyReport, judge_written, verify_file
from privyseal.errors import ConfigError, MalformedInputError, VerificationError
from privyseal.formats.authenticode import PE
from privyseal.formats.model import SignOptions
from privyseal.tlog.checkpoint import Checkpoint, sign_checkpoint
from privyseal.tlog.entry import Admin, ArtifactDigest, Result
from privyseal.tlog.note import NoteSigner
from privyseal.tlog.receipt import Receipt

IMAGE = make_pe()
TRUST = make_trust()


def clock() -> int:
    return int(NOW.timestamp() * 1000)


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    path = tmp_path / "roots.pem"
    path.write_bytes(authority().pem + tsa().root.pem)
    return path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.json"
    path.write_bytes(TRUST.bundle.envelope)
    return path


def timestamped(image: bytes = IMAGE) -> bytes:
    """A signature that does not vary, so that the token can be made over it."""
    by = signer("rsa")
    preimage = PE.preimage(PE.scan(io.BytesIO(image), SignOptions()), by.chain, SignOptions())
    return sign(image, by, timestamp_token=make_token(by.sign(preimage.signed)))


def write(folder: Path, signed: bytes, name: str = "app.exe") -> Path:
    path = folder / name
    path.write_bytes(signed)
    return path


def verified(path: Path, roots: Path, **options: object) -> VerifyReport:
    chosen = dataclasses.replace(VerifyOptions(trust=(roots,), offline=True), **options)  # type: ignore[arg-type]
    return Verifier(chosen, None, clock).verify(path)


def code(report: VerifyReport) -> str:
    return "" if report.error is None else report.error.code


def receipt_of(signed: bytes, **changes: str) -> str:
    """What the hub would have given for this file's signature."""
    (report,) = PE.verify(io.BytesIO(signed), ANCHORS, NOW)
    artifact = ArtifactDigest(alg=report.artifact.algorithm, digest=report.artifact.digest.hex())
    entry = Result(
        ts=2,
        intent=1,
        request="11" * 32,
        item=0,
        profile="release",
        key=changes.get("key", report.spki_sha256.hex()),
        format=PE.name,
        artifact=artifact,
        fence=1,
        outcome="ok",
        signature=changes.get("signature", report.signature_sha256.hex()),
    )
    log = MemoryLog()
    for place in range(7):
        log.append(entry if place == 3 else Admin(ts=place, action="filler", bundle=""))
    checkpoint = Checkpoint(origin=HUB, size=log.size, root=log.root())
    note = sign_checkpoint(checkpoint, NoteSigner(name=HUB, key=TRUST.log_key))
    receipt = Receipt(index=3, proof=log.inclusion(3), checkpoint=note)
    return dataclasses.replace(receipt, extra=log.entries[3]).encode()


def test_one_verifier_judges_many_files_with_roots_that_it_read_once(tmp_path: Path, roots: Path) -> None:
    good = write(tmp_path, sign(IMAGE), "good.exe")
    signed = good.read_bytes()
    bad = write(tmp_path, signed[:0x200] + b"!" + signed[0x201:], "bad.exe")
    text, missing = write(tmp_path, b"text", "notes.txt"), tmp_path / "missing.exe"
    verifier = Verifier(VerifyOptions(trust=(roots,), offline=True), None, clock)

    first = code(verifier.verify(good))
    roots.unlink()
    reports = [verifier.verify(path) for path in (bad, text, missing, write(tmp_path, IMAGE, "unsigned.exe"), good)]

    assert first == ""
    assert [code(report) for report in reports] == [
        "authenticode.digest_mismatch",
        "format.not_recognised",
        "file.unreadable",
        "file.unsigned",
        "",
    ]
    assert [report.format for report in reports] == [PE.name, "", "", PE.name, PE.name]
    assert len(reports[0].signatures) == 1, "what is known of it, although it does not verify"


def test_roots_that_cannot_be_read_end_the_run(tmp_path: Path) -> None:
    path = write(tmp_path, sign(IMAGE))

    with pytest.raises(ConfigError) as caught:
        verified(path, tmp_path / "none.pem")

    assert caught.value.code == "file.missing"


def test_verify_file_raises_what_the_report_says(tmp_path: Path, roots: Path) -> None:
    options = VerifyOptions(trust=(roots,), offline=True)
    path = write(tmp_path, sign(IMAGE))

    assert verify_file(path, options, None, clock).error is None
    with pytest.raises(VerificationError) as caught:
        verify_file(path, dataclasses.replace(options, trust=()), None, clock)
    assert caught.value.code == "chain.untrusted"
    assert "--trust" in caught.value.hint
    with pytest.raises(MalformedInputError):
        verify_file(tmp_path / "none", options, None, clock)


def test_a_timestamp_can_be_required(tmp_path: Path, roots: Path) -> None:
    without, with_one = write(tmp_path, sign(IMAGE), "a.exe"), write(tmp_path, timestamped(), "b.exe")
    no_tsa = tmp_path / "no-tsa.pem"
    no_tsa.write_bytes(authority().pem)

    assert code(verified(without, roots)) == ""
    assert code(verified(without, roots, require_timestamp=True)) == "timestamp.required"
    assert code(verified(with_one, roots, require_timestamp=True)) == ""
    assert code(verified(with_one, no_tsa, require_timestamp=True)) == "chain.untrusted"


def test_a_receipt_is_judged_with_a_bundle_and_nothing_else(tmp_path: Path, roots: Path, bundle: Path) -> None:
    path = write(tmp_path, sign(IMAGE))
    receipt_path(path).write_text(receipt_of(path.read_bytes()))

    report = verified(path, roots, bundle=bundle, require_receipt=True)

    assert report.error is None
    assert report.receipt is not None
    assert (report.receipt.index, report.receipt.checkpoint.origin) == (3, HUB)
    assert (report.log_size, report.unjudged_receipt) == (None, None)


def test_a_bundle_is_enough_even_if_the_hub_may_be_asked(tmp_path: Path, roots: Path, bundle: Path) -> None:
    """Unit tests open no socket: asking would fail."""
    path = write(tmp_path, sign(IMAGE))
    receipt_path(path).write_text(receipt_of(path.read_bytes()))

    assert verified(path, roots, bundle=bundle, offline=False).log_size is None


def test_a_receipt_that_nobody_can_judge_is_told(tmp_path: Path, roots: Path) -> None:
    path = write(tmp_path, sign(IMAGE))
    place = receipt_path(path)
    place.write_text(receipt_of(path.read_bytes()))

    report = verified(path, roots)

    assert (report.error, report.receipt, report.unjudged_receipt) == (None, None, place)
    for asked in ({"require_receipt": True}, {"receipt": place}):
        with pytest.raises(ConfigError) as caught:
            verified(path, roots, **asked)
        assert caught.value.code == "receipt.no_bundle"


def test_a_receipt_can_be_required(tmp_path: Path, roots: Path, bundle: Path) -> None:
    path = write(tmp_path, sign(IMAGE))

    assert code(verified(path, roots, bundle=bundle)) == ""
    assert code(verified(path, roots, bundle=bundle, require_receipt=True)) == "receipt.missing"


def test_a_receipt_of_something_else_is_refused(tmp_path: Path, roots: Path, bundle: Path) -> None:
    path = write(tmp_path, sign(IMAGE))
    place = receipt_path(path)
    wrong = {
        receipt_of(path.read_bytes(), key="00" * 32): "receipt.mismatch",
        receipt_of(path.read_bytes(), signature="00" * 32): "receipt.mismatch",
        "": "receipt.malformed",
    }

    for text, expected in wrong.items():
        place.write_text(text)
        report = verified(path, roots, bundle=bundle)
        assert (code(report), report.unjudged_receipt) == (expected, place)


def test_a_receipt_does_not_heal_a_signature(tmp_path: Path, roots: Path, bundle: Path) -> None:
    signed = sign(IMAGE)
    path = write(tmp_path, signed[:0x200] + b"!" + signed[0x201:])
    receipt_path(path).write_text(receipt_of(signed))

    report = verified(path, roots, bundle=bundle)

    assert code(report) == "authenticode.digest_mismatch"
    assert (report.receipt, report.unjudged_receipt) == (None, receipt_path(path))


def test_a_bundle_that_is_none_ends_the_run(tmp_path: Path, roots: Path) -> None:
    path = write(tmp_path, sign(IMAGE))
    receipt_path(path).write_text(receipt_of(path.read_bytes()))

    with pytest.raises(ConfigError) as caught:
        verified(path, roots, bundle=tmp_path / "none.json")

    assert caught.value.code == "file.missing"


def test_what_was_just_written_is_judged_by_the_same_verifier() -> None:
    signed = sign(IMAGE)
    (report,) = PE.verify(io.BytesIO(signed), ANCHORS, NOW)
    ours = report.signature_sha256

    judged = judge_written(io.BytesIO(signed), PE, ours, ANCHORS, NOW)

    assert [one.code for one in judged.warnings] == ["timestamp.missing"]
    assert judged.windows.startswith("Windows accepts it until")
    for data, wanted, expected in (
        (signed[:0x200] + b"!" + signed[0x201:], ours, "authenticode.digest_mismatch"),
        (signed, hashlib.sha256(b"another").digest(), "embed.missing"),
        (IMAGE, ours, "embed.missing"),
    ):
        with pytest.raises(VerificationError) as caught:
            judge_written(io.BytesIO(data), PE, wanted, ANCHORS, NOW)
        assert caught.value.code == expected
