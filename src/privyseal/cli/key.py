# SPDX-License-Identifier: Apache-2.0
"""`privyseal key`."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit, table

__all__ = ["list"]


def list(  # noqa: A001 - the command's name
    *, directory: Annotated[Path, Parameter(name="--dir")], as_json: AsJson = False
) -> None:
    """Signing keys on this host's tokens. Logs in to each token, once.

    Parameters
    ----------
    directory
        The agent's directory.
    as_json
        Print one JSON document.
    """
    keys = asyncio.run(_keys(directory))
    rows = [("TOKEN", "ID", "LABEL", "KEY", "CERTIFICATE")]
    rows += [
        (key["token"], key["id"], key["label"], f"sha256:{key['key'][:16]}…", key["subject"] or "none") for key in keys
    ]
    emit({"keys": keys}, table(rows), as_json=as_json)


async def _keys(directory: Path) -> Any:
    import hashlib  # noqa: PLC0415

    from privyseal.agent.config import load_agent_config, token_config  # noqa: PLC0415 - extra `agent`
    from privyseal.pki.x509 import parse_certificate  # noqa: PLC0415
    from privyseal.tokens.factory import open_token  # noqa: PLC0415

    found = []
    for table_ in load_agent_config(directory).token:
        token = open_token(token_config(table_, directory))
        try:
            for key in await token.keys():
                certificate = parse_certificate(key.certificates[0]) if key.certificates else None
                found.append(
                    {
                        "token": table_.name,
                        "id": key.key_id.hex(),
                        "label": key.label,
                        "key": hashlib.sha256(key.spki).hexdigest(),
                        "subject": "" if certificate is None else certificate.subject,
                        "not_after": None if certificate is None else certificate.not_after.isoformat(),
                        "certificates": len(key.certificates),
                    }
                )
        finally:
            await token.close()
    return found
