# SPDX-License-Identifier: Apache-2.0
"""A receipt belongs to one signature: key, format, artifact digest and signature value are each held against it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from privyseal.client.receipts import CheckedReceipt, match_receipt, read_receipt, receipt_path
from privyseal.errors import MalformedInputError, VerificationError
from privyseal.formats.model import Artifact, SignatureReport
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.entry import ArtifactDigest, Result
from privyseal.tlog.receipt import parse_receipt

REPORT = SignatureReport(
    subject="CN=Lab",
    spki_sha256=b"\x01" * 32,
    signature_sha256=b"\x02" * 32,
    artifact=Artifact(algorithm="sha256", digest=b"\x03" * 32),
)
ENTRY = Result(
    ts=1,
    intent=4,
    request="00" * 32,
    item=0,
    profile="demo",
    key="01" * 32,
    format="authenticode-pe",
    artifact=ArtifactDigest(alg="sha256", digest="03" * 32),
    fence=1,
    outcome="ok",
    signature="02" * 32,
)


def receipt(**changes: Any) -> CheckedReceipt:
    checkpoint = Checkpoint(origin="hub.example", size=6, root=bytes(32))
    return CheckedReceipt(entry=msgspec.structs.replace(ENTRY, **changes), index=5, checkpoint=checkpoint)


def test_a_receipt_of_this_signature() -> None:
    match_receipt(receipt(), REPORT, "authenticode-pe")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"key": "ff" * 32}, "key"),
        ({"key": "01" * 31}, "key"),
        ({"format": "authenticode-cab"}, "format"),
        ({"artifact": ArtifactDigest(alg="sha384", digest="03" * 32)}, "artifact digest"),
        ({"artifact": ArtifactDigest(alg="sha256", digest="04" * 32)}, "artifact digest"),
        ({"signature": "ff" * 32}, "signature"),
        ({"signature": ""}, "signature"),
        ({"signature": ("02" * 32).upper().replace("02", "02 ")}, "signature"),
    ],
)
def test_a_receipt_of_another_one(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(VerificationError) as caught:
        match_receipt(receipt(**changes), REPORT, "authenticode-pe")

    assert caught.value.code == "receipt.mismatch"
    assert f"the {what} in the file" in caught.value.message


def test_a_signature_of_another_file() -> None:
    other = replace(REPORT, artifact=Artifact(algorithm="sha256", digest=b"\x09" * 32))

    with pytest.raises(VerificationError, match="artifact digest"):
        match_receipt(receipt(), other, "authenticode-pe")


def test_where_receipts_lie() -> None:
    assert receipt_path(Path("/a/b.exe")) == Path("/a/b.exe.tlog-proof")


def test_a_receipt_that_cannot_be_read(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(MalformedInputError) as caught:
            read_receipt(place)
        assert caught.value.code == "file.unreadable"


@pytest.mark.parametrize("kind", ["fifo", "endless", "large"])
def test_what_is_no_receipt_is_not_read_to_its_end(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "app.exe.tlog-proof"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as stream:
            stream.truncate(1 << 40)

    with pytest.raises(MalformedInputError) as caught:
        parse_receipt(read_receipt(path))
    assert caught.value.code == ("receipt.malformed" if kind == "large" else "file.unreadable")
