# SPDX-License-Identifier: Apache-2.0
"""Signatures apart from their files: taken out, kept as files of their own, and put back. No key, no hub takes part.

For reproducible builds: whoever builds the same program attaches the signature that was published, and has the
published file byte for byte.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from privyseal.client.files import SourceFile, open_source, read_whole, write_edited, write_whole
from privyseal.errors import ConfigError, MalformedInputError, UnsupportedInputError, VerificationError
from privyseal.formats.model import Edits, Format, Patch, Scan, SignatureReport, SignOptions, TrustAnchors
from privyseal.formats.registry import HEAD_BYTES, detect_format
from privyseal.ports.clock import Clock, system_clock

__all__ = [
    "MAX_SIGNATURE_BYTES",
    "AttachedSignature",
    "ExtractedSignature",
    "attach_signature",
    "edit_signatures",
    "extract_signature",
    "remove_signatures",
    "signature_path",
]

#: The certificate table of a PE image may have that many, and no other format has more.
MAX_SIGNATURE_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedSignature:
    """What came of extracting.

    Attributes:
        difference: Why attaching the signature will not give the same file again, or empty.
    """

    source: Path
    target: Path
    format: str
    size_bytes: int
    difference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedSignature:
    """What came of attaching: the file's signatures, all of which hold."""

    source: Path
    target: Path
    format: str
    signatures: tuple[SignatureReport, ...]


def signature_path(path: Path) -> Path:
    """Where the signature of a file goes if nothing else is said."""
    return path.with_name(path.name + ".p7s")


def remove_signatures(path: Path, target: Path) -> str:
    """Take all signatures out of a file; `target` may be the file itself.

    Returns:
        The format's name.

    Raises:
        PrivysealError: whatever went wrong; then the target is as it was.
    """
    return edit_signatures(path, target, lambda edits: edits.remove, _check_removed)


def edit_signatures(
    path: Path,
    target: Path,
    choose: Callable[[Edits], Callable[[Scan], Patch]],
    check: Callable[[Path, Format, BinaryIO], None],
) -> str:
    """Change the signatures of a file, and nothing that they cover; `target` may be the file itself.

    Args:
        path: The file.
        target: Where the result goes.
        choose: Which edit.
        check: Raises if the result is not what was asked for.

    Returns:
        The format's name.

    Raises:
        PrivysealError: whatever went wrong; then the target is as it was.
    """
    with open_source(path) as source, _reading(path):
        chosen, edits = _editable(source)
        edit = choose(edits)
        source.stream.seek(0)
        before = chosen.scan(source.stream, SignOptions()).artifact
        step = _step(chosen, edit, SignOptions())
        with write_edited(source, (step,), target) as written, written.open("rb") as stream:
            if chosen.scan(stream, SignOptions()).artifact != before:
                raise VerificationError(
                    "signature.other_artifact",
                    f"{path}: what the signatures cover would change; nothing was written",
                    hint="keep the file: this is a defect in Privyseal",
                )
            stream.seek(0)
            check(path, chosen, stream)
        return chosen.name


def extract_signature(path: Path, target: Path) -> ExtractedSignature:
    """Write the first signature of a file into a file of its own; the file itself is only read.

    Raises:
        ConfigError: `files.same_target` if it would be written over the file.
        UnsupportedInputError: `signature.format`, or that there is none. MalformedInputError: `file.*`, the format's.
    """
    with open_source(path) as source, _reading(path):
        if target.exists() and target.samefile(path):
            raise ConfigError(
                "files.same_target", f"the signature of {path} would be written over it", hint="name another file: -o"
            )
        chosen, edits = _editable(source)
        source.stream.seek(0)
        detached = edits.extract(chosen.scan(source.stream, SignOptions()))
        difference = _difference(source, chosen, edits, detached)
        write_whole(target, detached, source)
    return ExtractedSignature(
        source=path, target=target, format=chosen.name, size_bytes=len(detached), difference=difference
    )


def attach_signature(
    path: Path, signature: Path, target: Path, anchors: TrustAnchors, clock: Clock = system_clock
) -> AttachedSignature:
    """Put a detached signature into a file, instead of those that it has; `target` may be the file itself.

    Raises:
        VerificationError: what does not hold of the file as it would be; nothing was written then.
        PrivysealError: whatever else went wrong; the target is as it was.
    """
    detached = read_whole(signature, MAX_SIGNATURE_BYTES)
    with open_source(path) as source, _reading(path):
        chosen, edits = _editable(source)
        try:
            options = SignOptions(digest_algorithm=edits.digest_algorithm(detached))
        except MalformedInputError as error:
            raise MalformedInputError(error.code, f"{signature}: {error.message}", hint=error.hint) from error
        step = _step(chosen, lambda scanned: edits.attach(scanned, detached), options)
        with write_edited(source, (step,), target) as written, written.open("rb") as stream:
            now = dt.datetime.fromtimestamp(clock() / 1000, dt.UTC)
            reports = chosen.verify(stream, anchors, now)
            _check_sound(path, reports)
    return AttachedSignature(source=path, target=target, format=chosen.name, signatures=reports)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What the system or the format says of a file becomes an error that names it."""
    try:
        yield
    except (MalformedInputError, UnsupportedInputError) as error:
        if str(path) in error.message:
            raise
        raise type(error)(error.code, f"{path}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise MalformedInputError("file.unreadable", f"cannot read {path}: {error.strerror or error}") from error


def _editable(source: SourceFile) -> tuple[Format, Edits]:
    chosen = detect_format(source.stream.read(HEAD_BYTES), str(source.path))
    if chosen.edits is None:
        raise UnsupportedInputError(
            "signature.format", f"{source.path}: signatures of {chosen.title} cannot be taken out or put in"
        )
    return chosen, chosen.edits


def _step(chosen: Format, edit: Callable[[Scan], Patch], options: SignOptions) -> Callable[[BinaryIO], Patch]:
    return lambda stream: edit(chosen.scan(stream, options))


def _check_removed(path: Path, chosen: Format, stream: BinaryIO) -> None:
    if chosen.scan(stream, SignOptions()).is_signed:
        raise VerificationError(
            "signature.left",
            f"{path}: a signature would be left; nothing was written",
            hint="keep the file: this is a defect in Privyseal",
        )


def _check_sound(path: Path, reports: tuple[SignatureReport, ...]) -> None:
    for report in reports:
        for problem in report.problems:
            hint = "if you trust its root, name it: --trust ROOT.pem" if problem.code == "chain.untrusted" else ""
            message = f"{path}: with the signature, {problem.message}; nothing was written"
            raise VerificationError(problem.code, message, hint=hint or problem.hint)
    if not reports:
        raise VerificationError(
            "embed.missing",
            f"{path}: the attached signature would not be found; nothing was written",
            hint="keep the file: this is a defect in Privyseal",
        )


def _difference(source: SourceFile, chosen: Format, edits: Edits, detached: bytes) -> str:
    """Attach what was extracted to the same file: every byte that this would write must be there already."""
    try:
        options = SignOptions(digest_algorithm=edits.digest_algorithm(detached))
        source.stream.seek(0)
        patch = edits.attach(chosen.scan(source.stream, options), detached)
    except (MalformedInputError, UnsupportedInputError) as error:
        return str(error)
    end = patch.keep_bytes
    for offset, data in patch.writes:
        end = max(end, offset + len(data))
        source.stream.seek(offset)
        if source.stream.read(len(data)) != data:
            return "the file holds more than this signature, or another program has padded it in its own way"
    return "" if end == source.status.st_size else "something follows the signature in the file"
