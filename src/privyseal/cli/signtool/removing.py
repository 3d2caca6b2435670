# SPDX-License-Identifier: Apache-2.0
"""`signtool remove`."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from privyseal.cli.signtool.arguments import Arguments
from privyseal.cli.signtool.talk import Talk, each_file
from privyseal.cli.signtool.values import now
from privyseal.client.signature_file import edit_signatures, remove_signatures
from privyseal.errors import ConfigError, UnsupportedInputError, VerificationError
from privyseal.formats.model import Dispensable, Edits, Format, Patch, Scan, TrustAnchors

__all__ = ["remove"]


def remove(arguments: Arguments, talk: Talk) -> int:
    """Take out signatures, or what they can be without."""
    what = frozenset(
        part
        for name, part in (("c", Dispensable.CERTIFICATES), ("u", Dispensable.UNSIGNED_ATTRIBUTES))
        if arguments.has(name)
    )
    if not what and not arguments.has("s"):
        raise ConfigError(
            "signtool.remove",
            "it is not said what to remove",
            hint="/s the signatures, /c all certificates but the signer's, /u unsigned attributes",
        )

    def act(path: Path) -> None:
        if what:
            edit_signatures(path, path, lambda edits: _strip(path, edits, what), _check_stripped)
        else:
            remove_signatures(path, path)
        removed = " and ".join(sorted(part.value for part in what)) or "signatures"
        talk.done(f"Successfully removed {removed}: {path}")

    each_file(arguments, talk, act)
    return talk.end("changed")


def _strip(path: Path, edits: Edits, what: frozenset[Dispensable]) -> Callable[[Scan], Patch]:
    strip = edits.strip
    if strip is None:
        raise UnsupportedInputError(
            "signature.format", f"{path}: of a signature in this format no part can be removed", hint="remove it: /s"
        )
    return lambda scanned: strip(scanned, what)


def _check_stripped(path: Path, chosen: Format, stream: BinaryIO) -> None:
    """What is left must be a signature; whether its chain is still complete is what was asked for."""
    reports = chosen.verify(stream, TrustAnchors(code_signing=()), now())
    problems = [one for report in reports for one in report.problems if not one.code.startswith("chain.")]
    if not reports or problems:
        why = problems[0].message if problems else "no signature would be left"
        raise VerificationError(
            "signature.not_kept", f"{path}: {why}; nothing was written", hint="remove the signatures as a whole: /s"
        )
