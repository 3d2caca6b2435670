# SPDX-License-Identifier: Apache-2.0
"""`privyseal token scan`: what PKCS#11 modules and tokens this machine has."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit, table
from privyseal.errors import MalformedInputError
from privyseal.pki.x509 import parse_certificate

if TYPE_CHECKING:
    from privyseal.tokens.contents import SeenToken
    from privyseal.tokens.discovery import LookedAt

__all__ = ["look", "scan"]


def scan(*, module: Annotated[tuple[Path, ...], Parameter(name="--module")] = (), as_json: AsJson = False) -> None:
    """PKCS#11 modules of this machine, and the tokens that they show. Logs in to none.

    Each module is loaded in a process of its own, with a deadline: one that hangs or crashes is told, and the others
    go on. SOFTHSM2_CONF and the like are handed to the module they are for.

    Parameters
    ----------
    module
        A module to look at, instead of the usual places; may be repeated.
    as_json
        Print one JSON document.
    """
    import asyncio  # noqa: PLC0415

    found = asyncio.run(look(module))
    emit({"modules": [_module_data(one) for one in found]}, _lines(found), as_json=as_json)


async def look(modules: tuple[Path, ...]) -> list["LookedAt"]:
    """Look at these modules, or at all at the usual places, one after the other."""
    from privyseal.tokens.discovery import look_at  # noqa: PLC0415 - POSIX
    from privyseal.tokens.places import FoundModule, find_modules  # noqa: PLC0415

    chosen = tuple(FoundModule(path=path.absolute(), product="") for path in modules) or find_modules()
    return [await look_at(one) for one in chosen]


def _module_data(found: "LookedAt") -> dict[str, Any]:
    contents, problem = found.contents, found.problem
    return {
        "module": str(found.module.path),
        "product": found.module.product,
        "machines": found.machines,
        "library": "" if contents is None else contents.library,
        "slots": 0 if contents is None else contents.slots,
        "problem": None if problem is None else {"code": problem.code, "message": problem.message},
        "tokens": [] if contents is None else [_token_data(one) for one in contents.tokens],
    }


def _token_data(token: "SeenToken") -> dict[str, Any]:
    return {
        "slot": token.slot,
        "label": token.label,
        "serial": token.serial,
        "manufacturer": token.manufacturer,
        "model": token.model,
        "hardware": token.hardware,
        "initialized": token.initialized,
        "login_required": token.login_required,
        "pin_state": token.pin_state.value,
        "problem": token.problem,
        "certificates": [
            {"id": one.key_id.hex(), "subject": _subject(one.der)[0], "not_after": _subject(one.der)[1]}
            for one in token.certificates
        ],
    }


def _subject(encoded: bytes) -> tuple[str, str]:
    try:
        certificate = parse_certificate(encoded)
    except MalformedInputError as error:
        return error.message, ""
    return certificate.subject, certificate.not_after.isoformat()


def _lines(found: list["LookedAt"]) -> Iterable[str]:
    if not found:
        yield "no PKCS#11 module lies at the usual places; install the vendor's library, or name it with --module"
        return
    rows = [("MODULE", "SLOT", "LABEL", "SERIAL", "MODEL", "PIN")]
    for one in found:
        tokens = () if one.contents is None else one.contents.tokens
        rows += [(str(one.module.path), *_token_row(token)) for token in tokens]
        if not tokens:
            rows.append((str(one.module.path), "", _nothing(one), "", "", ""))
    yield from table(rows)
    certificates = [
        (token.label, one.key_id.hex(), *_subject(one.der))
        for looked in found
        if looked.contents is not None
        for token in looked.contents.tokens
        for one in token.certificates
    ]
    if certificates:
        yield ""
        yield from table([("TOKEN", "ID", "PUBLIC CERTIFICATE", "UNTIL"), *certificates])


def _nothing(looked: "LookedAt") -> str:
    if looked.problem is not None:
        return str(looked.problem)
    slots = 0 if looked.contents is None else looked.contents.slots
    return f"loads; no token in {slots} slots"


def _token_row(token: "SeenToken") -> tuple[str, str, str, str, str]:
    if not token.initialized:
        return str(token.slot), "(not initialised)", "", token.model, ""
    model = token.model if token.hardware else f"{token.model} (not hardware)"
    pin = token.pin_state.value if token.login_required else "not needed"
    return str(token.slot), token.label, token.serial, model, pin
