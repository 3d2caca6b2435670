# SPDX-License-Identifier: Apache-2.0
"""`privyseal signature`: signatures apart from their files."""

import os
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from privyseal.cli.render import emit, emit_error, error_document, say
from privyseal.client.config import optional_client_config
from privyseal.client.signature_file import attach_signature, extract_signature, remove_signatures, signature_path
from privyseal.client.verifying import trust_anchors
from privyseal.errors import ConfigError, PrivysealError
from privyseal.formats.model import TrustAnchors

__all__ = ["attach", "extract", "remove"]

_SOME_FAILED: Final = 9
_OUTPUT: Final = Parameter(name=["--output", "-o"])


def remove(
    *files: Path,
    output: Annotated[Path | None, _OUTPUT] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Take every signature out of files, in place. Several files: goes on after a failure.

    What the signatures covered stays as it is, which is checked before anything is written. Receipts are left alone.

    Parameters
    ----------
    files
        Signed files.
    output
        Write here instead: a file, or a directory for several.
    as_json
        Print one JSON document.
    """
    if not files:
        raise ConfigError("usage.arguments", "no file is named", hint="privyseal signature remove FILE...")
    different = tuple({os.path.realpath(path): path for path in files}.values())
    targets = _targets(different, output)
    if len(different) == 1:
        done = _removed(different[0], targets[0])
        emit(done, (f"removed   {targets[0]}",), as_json=as_json)
        return 0
    data, lines = [], []
    for path, target in zip(different, targets, strict=True):
        try:
            data.append(_removed(path, target))
            lines.append(f"removed   {target}")
        except PrivysealError as error:
            emit_error(error, as_json=False)
            data.append({"file": str(path), "error": error_document(error)})
            lines.append(f"failed    {path} [{error.code}]")
    failed = sum("error" in one for one in data)
    lines.append(f"          {len(data) - failed} of {len(data)} files are without signatures now")
    emit({"files": data, "failed": failed}, lines, as_json=as_json)
    return _SOME_FAILED if failed else 0


def _removed(path: Path, target: Path) -> dict[str, Any]:
    return {"file": str(path), "output": str(target), "format": remove_signatures(path, target)}


def _targets(files: tuple[Path, ...], output: Path | None) -> tuple[Path, ...]:
    if output is None:
        return files
    if len(files) == 1 and not output.is_dir():
        return (output,)
    targets = tuple(output / path.name for path in files)
    if not output.is_dir() or len(set(targets)) < len(targets):
        raise ConfigError(
            "usage.arguments",
            f"--output {output} must be a directory for several files, and these must have different names",
            hint="name a directory that exists, or do it in several runs",
        )
    return targets


def extract(
    file: Path,
    *,
    output: Annotated[Path | None, _OUTPUT] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Write the first signature of a file into a file of its own, to publish it. The file is only read.

    Parameters
    ----------
    file
        A signed file.
    output
        Where the signature goes (default: FILE.p7s).
    as_json
        Print one JSON document.
    """
    done = extract_signature(file, output or signature_path(file))
    if done.difference:
        say(f"privyseal: attaching it will not give {file} byte for byte: {done.difference}")
    emit(
        {
            "file": str(done.source),
            "output": str(done.target),
            "format": done.format,
            "size": done.size_bytes,
            "reproduces": not done.difference,
        },
        (f"extracted {done.target} ({done.size_bytes} bytes)",),
        as_json=as_json,
    )


def attach(
    file: Path,
    signature: Path,
    *,
    output: Annotated[Path | None, _OUTPUT] = None,
    trust: tuple[Path, ...] = (),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Put an extracted signature into a file that was built again, instead of any that it has.

    The file as it would be is verified strictly first; if its signature does not hold, nothing is written.

    Parameters
    ----------
    file
        The file, as it was built.
    signature
        A signature that was extracted from the same file.
    output
        Write here instead of in place.
    trust
        PEM file with roots to trust, beside those of the configuration and the system. May be repeated.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places; none is needed).
    """
    found = optional_client_config(config)
    roots = trust_anchors((*trust, *(() if found is None else found.trust)))
    anchors = TrustAnchors(code_signing=roots, time_stamping=roots)
    done = attach_signature(file, signature, output or file, anchors)
    subjects = [one.subject for one in done.signatures]
    emit(
        {"file": str(done.source), "output": str(done.target), "format": done.format, "subjects": subjects},
        (f"attached  {done.target}", *(f"signer    {subject}" for subject in subjects)),
        as_json=as_json,
    )
