# SPDX-License-Identifier: Apache-2.0
"""`privyseal verify`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from privyseal.cli.render import emit
from privyseal.client.config import ClientConfig, load_client_config
from privyseal.client.verifying import VerifyOptions, VerifyReport, verify_file
from privyseal.errors import ConfigError

__all__ = ["verify"]


def verify(
    file: Path,
    /,
    *,
    trust: tuple[Path, ...] = (),
    receipt: Path | None = None,
    offline: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Verify every signature of a file, and the receipt beside it.

    A receipt is judged with the trust bundle that this machine pinned when it joined; without a client configuration
    the file's signatures alone are verified.

    Parameters
    ----------
    file
        The signed file.
    trust
        PEM file with roots to trust, beside those of the configuration and the system. May be repeated.
    receipt
        The receipt (default: FILE.tlog-proof, if it is there).
    offline
        Ask no hub.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    options = VerifyOptions(trust=trust, receipt=receipt, offline=offline)
    report = verify_file(file, options, _optional_config(config))
    emit(_data(report), _lines(report), as_json=as_json)


def _optional_config(explicit: str) -> ClientConfig | None:
    try:
        return load_client_config(explicit)
    except ConfigError as error:
        if error.code == "config.missing" and not explicit:
            return None
        raise


def _data(report: VerifyReport) -> dict[str, Any]:
    receipt = report.receipt
    return {
        "file": str(report.path),
        "verified": True,
        "format": report.format,
        "signatures": [
            {
                "subject": signature.subject,
                "key": signature.spki_sha256.hex(),
                "artifact": f"{signature.artifact.algorithm}:{signature.artifact.digest.hex()}",
                "timestamp": None if signature.timestamped_at is None else signature.timestamped_at.isoformat(),
            }
            for signature in report.signatures
        ],
        "receipt": None
        if receipt is None
        else {"log": receipt.checkpoint.origin, "index": receipt.index, "size": receipt.checkpoint.size},
        "log_size": report.log_size,
    }


def _lines(report: VerifyReport) -> list[str]:
    lines = [f"verified  {report.path} ({report.format})"]
    for signature in report.signatures:
        lines.append(f"signer    {signature.subject}")
        lines.append(f"artifact  {signature.artifact.algorithm}:{signature.artifact.digest.hex()}")
        if signature.timestamped_at is not None:
            lines.append(f"stamped   {signature.timestamped_at.isoformat()}")
    if report.receipt is None:
        lines.append("receipt   none")
    else:
        place = f"entry {report.receipt.index} of log {report.receipt.checkpoint.origin}"
        today = (
            "the hub was not asked"
            if report.log_size is None
            else f"the hub's log of {report.log_size} entries extends it"
        )
        lines.append(f"receipt   {place}; {today}")
    return lines
