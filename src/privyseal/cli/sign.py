# SPDX-License-Identifier: Apache-2.0
"""`privyseal sign`."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from privyseal.cli.render import emit, say
from privyseal.client.config import load_client_config
from privyseal.client.signing import SignedFile, Signer
from privyseal.formats.model import SignOptions

__all__ = ["sign"]


def sign(
    file: Path,
    /,
    *,
    key: str,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    digest: Literal["sha256", "sha384", "sha512"] = "sha256",
    description: Annotated[str, Parameter(name=["--description", "-d"])] = "",
    url: Annotated[str, Parameter(name=["--url", "-u"])] = "",
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Sign a file: hashed and embedded here, only the small structure that is signed travels.

    The receipt is left beside the signed file as FILE.tlog-proof. On any failure the file is as it was.

    Parameters
    ----------
    file
        The file to sign.
    key
        Name of the key profile.
    output
        Write the signed file here instead of signing in place.
    digest
        Digest algorithm.
    description
        Program name that Windows shows when it asks for consent.
    url
        URL that Windows shows beside it.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    loaded = load_client_config(config)
    target = file if output is None else output
    quiet = as_json or not sys.stderr.isatty()
    signed = Signer(loaded, profile=key).sign(
        file,
        target,
        SignOptions(digest_algorithm=digest, program_name=description, program_url=url),
        (lambda _: None) if quiet else say,
    )
    emit(_data(signed), _lines(signed), as_json=as_json)


def _data(signed: SignedFile) -> dict[str, Any]:
    return {
        "file": str(signed.source),
        "output": str(signed.target),
        "receipt": str(signed.receipt_path),
        "format": signed.format,
        "artifact": signed.artifact,
        "subject": signed.subject,
        "key": signed.spki_sha256,
        "log_index": signed.log_index,
        "log_size": signed.log_size,
        "sent_bytes": signed.sent_bytes,
    }


def _lines(signed: SignedFile) -> tuple[str, ...]:
    return (
        f"signed    {signed.target}",
        f"signer    {signed.subject}",
        f"artifact  {signed.artifact}",
        f"receipt   {signed.receipt_path} (log entry {signed.log_index})",
    )
