# SPDX-License-Identifier: Apache-2.0
"""Asking a log: what it holds of a file, and what a key was used for; one that does not hold gives no answer."""

import hashlib
import io
from pathlib import Path

import pytest
from msgspec.structs import replace

from log_samples import GrownLog, genesis, intent_at, result_of, sha
from pe_samples import make_pe
from privyseal.cli.moments import exact_moment, moment_text, parse_moment
from privyseal.client.log_uses import Findings, Interval, Sought, find_uses, report_uses
from privyseal.client.sought import sought_by_digest, sought_by_file
from privyseal.errors import ConfigError, LogIntegrityError, MalformedInputError
from privyseal.formats.model import SignOptions
from privyseal.formats.registry import format_named
from privyseal.tlog.entry import ArtifactDigest, TimestampEntry, Unknown

FIRST, SECOND, THIRD, FOURTH = (intent_at(ts, number) for ts, number in ((10, 1), (20, 2), (30, 3), (40, 4)))
OTHER = intent_at(25, 5, profile="nightly", key=4)
RESULT = result_of(12, 1, FIRST)
UNKNOWN = Unknown(
    ts=35, intent=4, request=THIRD.request, item=0, profile="release", fence=1, code="token.timeout"
)  # fmt: skip
TIMESTAMP = TimestampEntry(
    ts=13,
    client=sha(7),
    token=sha(70),
    imprint=hashlib.sha256(bytes.fromhex(RESULT.signature)).hexdigest(),
    tsa=sha(71),
)


def log() -> GrownLog:
    log = GrownLog()
    log.commit(genesis(), FIRST, RESULT, TIMESTAMP)
    log.commit(THIRD)
    log.commit(UNKNOWN)
    return log


def whole() -> GrownLog:
    """Index 1 ok (ends at 2), 4 unknown (ends at 5), 6 failed (ends at 8), 7 by another key, 9 open."""
    grown, failed = log(), replace(SECOND, ts=36)
    other = replace(OTHER, ts=37)
    grown.commit(failed, other)
    grown.commit(result_of(38, 6, failed, "failed"), FOURTH)
    return grown


def outcomes(found: Findings) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(use.index, use.outcome, why) for use, why in found.uses]


@pytest.mark.parametrize(
    ("digest", "why"),
    [
        (FIRST.artifact.digest, "artifact"),
        (FIRST.claimed.sha256, "file"),
        (FIRST.preimage, "preimage"),
        (FIRST.digest, "preimage"),
        (RESULT.signature, "signature"),
    ],
)
def test_a_digest_is_found_wherever_it_stands(digest: str, why: str) -> None:
    found = find_uses(whole().public(), Sought(digests=frozenset((digest,))))

    assert outcomes(found) == [(1, "ok", (why,))]
    assert [index for index, _ in found.timestamps] == [3]
    assert found.uses[0][0].end_index == 2


def test_uses_without_a_signature_are_found_too() -> None:
    digests = frozenset((SECOND.artifact.digest, THIRD.claimed.sha256, FOURTH.artifact.digest))

    found = find_uses(whole().public(), Sought(digests=digests))

    assert outcomes(found) == [(4, "unknown", ("file",)), (6, "failed", ("artifact",)), (9, "open", ("artifact",))]
    assert found.timestamps == ()


@pytest.mark.parametrize("digest", [sha(99), FIRST.request, FIRST.client, ""])
def test_what_is_not_there_is_not_found(digest: str) -> None:
    assert find_uses(whole().public(), Sought(digests=frozenset((digest,)))).uses == ()


def test_an_artifact_digest_counts_with_its_algorithm() -> None:
    artifact = FIRST.artifact
    for algorithm, count in (("sha256", 1), ("sha384", 0)):
        sought = Sought(artifacts=frozenset(((algorithm, artifact.digest),)))
        assert len(find_uses(whole().public(), sought).uses) == count


def test_nothing_is_answered_from_a_log_that_does_not_hold() -> None:
    grown = whole()
    grown.entries[2] = grown.entries[2].replace(RESULT.signature.encode(), sha(98).encode())

    for ask in (
        lambda: find_uses(grown.public(), Sought(digests=frozenset((FIRST.artifact.digest,)))),
        lambda: report_uses(grown.public(), "release", Interval()),
    ):
        with pytest.raises(LogIntegrityError) as caught:
            ask()
        assert caught.value.code == "log.root"


def test_a_result_whose_signature_is_no_digest_is_no_trouble() -> None:
    grown = GrownLog()
    grown.commit(genesis(), FIRST, replace(RESULT, signature="zz"))

    assert len(find_uses(grown.public(), Sought(digests=frozenset((FIRST.artifact.digest,)))).uses) == 1


def test_everything_that_a_key_did_is_reported() -> None:
    for key in ("release", FIRST.key):
        found = report_uses(whole().public(), key, Interval())
        assert [(use.index, use.outcome) for use in found.uses] == [
            (1, "ok"),
            (4, "unknown"),
            (6, "failed"),
            (9, "open"),
        ]
        assert [found.count(one) for one in ("ok", "failed", "not-used", "unknown", "open")] == [1, 1, 0, 1, 1]
    assert [use.index for use in report_uses(whole().public(), "nightly", Interval()).uses] == [7]


@pytest.mark.parametrize(
    ("interval", "indexes"),
    [
        (Interval(start=13), [4, 6, 9]),
        (Interval(start=12), [1, 4, 6, 9]),
        (Interval(end=10), []),
        (Interval(end=11), [1]),
        (Interval(start=31, end=36), [4]),
        (Interval(start=50), [9]),
        (Interval(start=50, end=60), [9]),
    ],
    ids=str,
)
def test_an_interval_takes_in_whatever_reaches_into_it(interval: Interval, indexes: list[int]) -> None:
    assert [use.index for use in report_uses(whole().public(), "release", interval).uses] == indexes


def test_a_key_that_nobody_knows_is_no_key_that_signed_nothing() -> None:
    with pytest.raises(ConfigError) as caught:
        report_uses(whole().public(), "relaese", Interval())
    assert caught.value.code == "report.unknown_key"


def test_a_program_is_looked_for_by_what_its_format_says(tmp_path: Path) -> None:
    program = tmp_path / "app.exe"
    program.write_bytes(make_pe())

    sought, trouble = sought_by_file(program)

    assert trouble is None
    assert sought.files == {hashlib.sha256(program.read_bytes()).hexdigest()}
    scan = format_named("authenticode-pe").scan(io.BytesIO(program.read_bytes()), SignOptions())
    assert ("sha256", scan.artifact.digest.hex()) in sought.artifacts
    assert {algorithm for algorithm, _ in sought.artifacts} == {"sha256", "sha384", "sha512"}
    assert sought.signatures == ()
    artifact = ArtifactDigest(alg="sha256", digest=scan.artifact.digest.hex())
    grown = GrownLog()
    grown.commit(genesis(), replace(FIRST, artifact=artifact))
    assert outcomes(find_uses(grown.public(), sought)) == [(1, "open", ("artifact",))]


@pytest.mark.parametrize("data", [b"", b"no program", b"MZ" + bytes(100)])
def test_any_other_file_is_looked_for_by_its_digest(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)

    sought, trouble = sought_by_file(tmp_path / "file")

    assert trouble is not None
    assert sought == Sought(files=frozenset((hashlib.sha256(data).hexdigest(),)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MalformedInputError):
        sought_by_file(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        ("A" * 64, "a" * 64),
        ("sha256:" + "0" * 64, "0" * 64),
        ("b" * 96, "b" * 96),
        ("c" * 128, "c" * 128),
        ("c" * 40, None),
        ("g" * 64, None),
        ("app.exe", None),
    ],
    ids=str,
)
def test_what_a_digest_looks_like(text: str, digest: str | None) -> None:
    sought = sought_by_digest(text)

    assert (None if sought is None else set(sought.digests)) == (None if digest is None else {digest})


@pytest.mark.parametrize(
    ("text", "whole_day", "exact"),
    [
        ("2026-03-01", False, "2026-03-01T00:00:00.000Z"),
        ("2026-03-01", True, "2026-03-02T00:00:00.000Z"),
        ("2026-03-01T12:30", True, "2026-03-01T12:30:00.000Z"),
        ("2026-03-01T12:30:00.250+02:00", False, "2026-03-01T10:30:00.250Z"),
    ],
)
def test_moments_are_read_and_written(text: str, whole_day: bool, exact: str) -> None:  # noqa: FBT001
    moment = parse_moment(text, whole_day=whole_day)

    assert moment is not None
    assert exact_moment(moment) == exact
    assert moment_text(moment) == exact[:19].replace("T", " ")


@pytest.mark.parametrize("text", ["yesterday", "2026-02-30", "9999-12-31", "26-03-01"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_moment(text, whole_day=True)
    assert caught.value.code == "usage.moment"


def test_no_moment_and_one_that_no_calendar_reaches() -> None:
    assert parse_moment("") is None
    assert moment_text(2**53 - 1) == f"{2**53 - 1} ms"
