# SPDX-License-Identifier: Apache-2.0
"""`privyseal key`."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.custody import accept, custody
from privyseal.cli.render import emit, say, table
from privyseal.errors import ConfigError

if TYPE_CHECKING:
    from privyseal.cli.certifying import Stored

__all__ = ["accept", "csr", "custody", "generate", "import_", "list", "test_certificate"]

_Directory = Annotated[Path, Parameter(name="--dir")]
_KeyId = Annotated[str, Parameter(name="--id")]
_PUBLIC_RSA_WARNING = (
    "warning: publicly trusted code signing needs RSA keys of at least 3072 bits; no public CA certifies this one"
)


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

    from privyseal.agent.config import load_agent_config  # noqa: PLC0415 - extra `agent`
    from privyseal.cli.token_host import opened  # noqa: PLC0415
    from privyseal.pki.x509 import parse_certificate  # noqa: PLC0415

    found = []
    for table_ in load_agent_config(directory).token:
        async with opened(directory, table_.name) as token:
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
    return found


def generate(
    *,
    directory: _Directory,
    label: str,
    kind: Annotated[Literal["rsa-3072", "rsa-4096", "rsa-2048", "ec-p256", "ec-p384"], Parameter(name="--type")],
    token: str = "",
    key_id: _KeyId = "",
    as_json: AsJson = False,
) -> None:
    """Make a key pair on a token. The private key is sensitive and not extractable: it cannot leave the token.

    Parameters
    ----------
    directory
        The agent's directory.
    label
        CKA_LABEL of the new key.
    kind
        Public CAs want RSA of 3072 bits or more, or ECDSA.
    token
        Name of the token in agent.toml; needed if there are several.
    key_id
        CKA_ID in hex; by default the first free one.
    as_json
        Print one JSON document.
    """
    import hashlib  # noqa: PLC0415

    from privyseal.cli.certifying import KINDS, generate_key, profile_lines  # noqa: PLC0415 - extra `agent`

    if kind == "rsa-2048":
        say(_PUBLIC_RSA_WARNING)
    key = generate_key(directory, token, kind=KINDS[kind], key_id=key_id, label=label)
    data = {
        "id": key.key_id.hex(),
        "label": key.label,
        "type": kind,
        "key": hashlib.sha256(key.spki).hexdigest(),
    }
    lines = (
        f"key id {data['id']} ({label}) was made on the token, sha256:{data['key']}",
        "first: it needs a certificate (privyseal key csr, or for trials privyseal key test-certificate)",
        *profile_lines(directory, token, key),
    )
    emit(data, lines, as_json=as_json)


def csr(
    *,
    directory: _Directory,
    subject: str,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    token: str = "",
    key_id: _KeyId = "",
    as_json: AsJson = False,
) -> None:
    """Make a certification request (PKCS#10, PEM) that a CA takes; the key on the token signs it.

    Parameters
    ----------
    directory
        The agent's directory.
    subject
        RFC 4514, for example "CN=ACME Ltd,O=ACME Ltd,L=Berlin,C=DE".
    output
        Where the request goes.
    token
        Name of the token in agent.toml; needed if there are several.
    key_id
        CKA_ID in hex; needed if the token has several signing keys.
    as_json
        Print one JSON document.
    """
    from privyseal.cli.certifying import make_request  # noqa: PLC0415 - extra `agent`
    from privyseal.identity.keyfile import write_public  # noqa: PLC0415

    write_public(output, make_request(directory, token, key_id=key_id, subject=subject))
    emit(
        {"request": str(output), "subject": subject},
        (
            f"{output}: send it to the CA",
            f"then: privyseal key import --dir {directory} CERTIFICATE.pem CHAIN.pem",
        ),
        as_json=as_json,
    )


def import_(*files: Path, directory: _Directory, token: str = "", key_id: _KeyId = "", as_json: AsJson = False) -> None:
    """Check certificates and put them beside their key: on the token, or in a chain file if the token takes none.

    Checked are: the key, code signing as a purpose, dates, key sizes, and the chain up to its root with each signature.

    Parameters
    ----------
    files
        PEM or DER: the key's certificate, and its chain.
    directory
        The agent's directory.
    token
        Name of the token in agent.toml; needed if there are several.
    key_id
        CKA_ID in hex; needed if the token has several signing keys.
    as_json
        Print one JSON document.
    """
    from privyseal.cli.certifying import import_certificates, profile_lines  # noqa: PLC0415 - extra `agent`

    if not files:
        raise ConfigError("usage.arguments", "which certificates?", hint="privyseal key import CERT.pem CHAIN.pem")
    stored = import_certificates(directory, token, key_id=key_id, files=files)
    chain = "" if stored.chain_file is None else stored.chain_file.name
    emit(
        _stored_data(stored),
        (*_stored_lines(stored), *profile_lines(directory, token, stored.key, chain=chain)),
        as_json=as_json,
    )


def test_certificate(
    *,
    directory: _Directory,
    name: str,
    token: str = "",
    key_id: _KeyId = "",
    root: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Have a self-made test root certify a key, so that everything can be tried before the real certificate arrives.

    Parameters
    ----------
    directory
        The agent's directory.
    name
        Common name of the certificate.
    token
        Name of the token in agent.toml; needed if there are several.
    key_id
        CKA_ID in hex; needed if the token has several signing keys.
    root
        Where the root goes, to be trusted by those who try; by default test-root.pem in the agent's directory.
    as_json
        Print one JSON document.
    """
    from privyseal.cli.certifying import make_test_certificate, profile_lines  # noqa: PLC0415 - extra `agent`

    place = directory / "test-root.pem" if root is None else root
    stored = make_test_certificate(directory, token, key_id=key_id, name=name, root=place)
    chain = "" if stored.chain_file is None else stored.chain_file.name
    emit(
        _stored_data(stored) | {"root": str(place)},
        (
            *_stored_lines(stored),
            f"its root: {place}; name it under `trust` in a client.toml, or: privyseal verify --trust {place} FILE",
            *profile_lines(directory, token, stored.key, test=True, chain=chain),
        ),
        as_json=as_json,
    )


def _stored_data(stored: "Stored") -> dict[str, Any]:
    from privyseal.pki.x509 import parse_certificate  # noqa: PLC0415

    return {
        "id": stored.key.key_id.hex(),
        "chain": [parse_certificate(one).subject for one in stored.chain],
        "on_token": stored.chain_file is None,
        "chain_file": None if stored.chain_file is None else str(stored.chain_file),
        "reason": stored.reason,
        "remarks": stored.remarks,
    }


def _stored_lines(stored: "Stored") -> tuple[str, ...]:
    from privyseal.pki.x509 import parse_certificate  # noqa: PLC0415

    place = f"written to {stored.chain_file}: {stored.reason}" if stored.chain_file else "stored on the token"
    return (
        f"key id {stored.key.key_id.hex()}: {len(stored.chain)} certificates {place}",
        *(f"  {parse_certificate(one).subject}" for one in stored.chain),
        *(f"warning: {remark}" for remark in stored.remarks),
    )
