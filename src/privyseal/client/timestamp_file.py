# SPDX-License-Identifier: Apache-2.0
"""Putting timestamps into a file that is signed already: no key and no hub takes part in that."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from privyseal.client.files import SourceFile, open_source, write_edited
from privyseal.client.timestamping import Timestamper
from privyseal.errors import MalformedInputError, UnsupportedInputError, VerificationError
from privyseal.formats.model import Edits, Format, Patch, SignatureReport, SignOptions, TrustAnchors
from privyseal.formats.registry import HEAD_BYTES, detect_format
from privyseal.pki import oids, tsp
from privyseal.ports.clock import Clock, system_clock

__all__ = ["FileTimestamper", "TimestampedFile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampedFile:
    """What came of it.

    Attributes:
        added: How many signatures got a timestamp now; 0 leaves the file untouched.
        times: genTime of every signature's timestamp, in the order of the signatures.
    """

    path: Path
    format: str
    added: int
    times: tuple[dt.datetime, ...]


class FileTimestamper:
    """Timestamps the signatures of files; safe to share between threads that work on different files."""

    def __init__(
        self,
        timestamper: Timestamper,
        *,
        replace: bool = False,
        position: int | None = None,
        clock: Clock = system_clock,
    ) -> None:
        """Take what it works with.

        Args:
            timestamper: Where tokens come from; signatures, too, must end at its roots.
            replace: Ask for a new token also where there is one.
            position: Of the only signature that gets a timestamp; None means all.
            clock: This machine's time.
        """
        self._timestamper = timestamper
        self._anchors = TrustAnchors(code_signing=timestamper.anchors, time_stamping=timestamper.anchors)
        self._replace = replace
        self._position = position
        self._clock = clock

    def add(self, path: Path) -> TimestampedFile:
        """Timestamp the signatures of one file, in place.

        Raises:
            PrivysealError: whatever went wrong; then the file is as it was.
        """
        try:
            return self._add(path)
        except OSError as error:
            raise MalformedInputError("file.unreadable", f"cannot read {path}: {error.strerror or error}") from error

    def _add(self, path: Path) -> TimestampedFile:
        with open_source(path) as source:
            chosen = detect_format(source.stream.read(HEAD_BYTES), str(path))
            edits = chosen.edits
            if edits is None:
                raise UnsupportedInputError(
                    "timestamp.format", f"{path}: a timestamp cannot be put beside a signature of {chosen.title}"
                )
            reports = self._judge(source.stream, chosen)
            if not reports:
                raise VerificationError("file.unsigned", f"{path} carries no signature", hint="privyseal sign")
            if not self._replace:
                _check_sound(path, reports)
            places = [
                place for place in self._places(path, len(reports)) if self._replace or not reports[place].timestamps
            ]
            if places:
                reports = self._write(source, chosen, edits, {place: reports[place] for place in places})
        times = tuple(report.timestamped_at for report in reports if report.timestamped_at is not None)
        return TimestampedFile(path=path, format=chosen.name, added=len(places), times=times)

    def _places(self, path: Path, count: int) -> range:
        if self._position is None:
            return range(count)
        if not 0 <= self._position < count:
            raise UnsupportedInputError(
                "timestamp.no_such_signature",
                f"{path} has no signature at position {self._position}",
                hint=f"it has {count} signatures; the first one is at position 0",
            )
        return range(self._position, self._position + 1)

    def _judge(self, stream: BinaryIO, chosen: Format) -> tuple[SignatureReport, ...]:
        stream.seek(0)
        now = dt.datetime.fromtimestamp(self._clock() / 1000, dt.UTC)
        return chosen.verify(stream, self._anchors, now)

    def _write(
        self, source: SourceFile, chosen: Format, edits: Edits, wanted: dict[int, SignatureReport]
    ) -> tuple[SignatureReport, ...]:
        source.stream.seek(0)
        values = edits.signature_values(chosen.scan(source.stream, SignOptions()))
        tokens = {place: self._timestamper.token(values[place], _digest(report)) for place, report in wanted.items()}
        steps = tuple(_step(chosen, edits, place, token) for place, token in tokens.items())
        with write_edited(source, steps, source.path) as written:
            with written.open("rb") as stream:
                reports = self._judge(stream, chosen)
            _check_sound(source.path, reports)
            for place, token in tokens.items():
                if reports[place].timestamped_at != tsp.parse_token(token).gen_time:
                    raise VerificationError(
                        "timestamp.not_embedded",
                        f"{source.path}: the new timestamp is not beside its signature; the file was not written",
                        hint="keep the file: this is a defect in Privyseal",
                    )
        return reports


def _step(chosen: Format, edits: Edits, place: int, token: bytes) -> Callable[[BinaryIO], Patch]:
    return lambda stream: edits.add_timestamp(chosen.scan(stream, SignOptions()), place, token)


def _digest(report: SignatureReport) -> str:
    """The imprint is made with the digest algorithm of the signature, which whoever verifies must know anyway."""
    algorithm = report.artifact.algorithm
    return algorithm if algorithm in oids.DIGEST_OIDS else "sha256"


def _check_sound(path: Path, reports: tuple[SignatureReport, ...]) -> None:
    for report in reports:
        if report.problem_code:
            hint = (
                "if you trust its root, name it: --trust ROOT.pem" if report.problem_code == "chain.untrusted" else ""
            )
            raise VerificationError(report.problem_code, f"{path}: {report.problem}; the file is as it was", hint=hint)
