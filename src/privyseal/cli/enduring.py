# SPDX-License-Identifier: Apache-2.0
"""`privyseal token test`."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.progress import watching
from privyseal.cli.prompts import confirm
from privyseal.cli.render import emit, table
from privyseal.errors import ConfigError

if TYPE_CHECKING:
    from privyseal.agent.endurance import Endured

__all__ = ["test"]

_MOST = 1_000_000


def test(
    name: str = "",
    /,
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    soak: int = 100,
    key_id: Annotated[str, Parameter(name="--id")] = "",
    yes: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign many times in a row and say how the token took it: times, faults, recoveries.

    Changes nothing on the token. It logs in once, and again only where a session was lost. The digests are random: no
    file is signed. The signatures stand in no log; a token that counts its signatures counts them, and its agent will
    want to know of that (docs/custody.md).

    Parameters
    ----------
    name
        Name of the token in agent.toml; may be left out if there is only one.
    directory
        The agent's directory. Stop the agent first: many modules do not share a token.
    soak
        How many signatures.
    key_id
        Which key, by its CKA_ID in hex; may be left out if there is only one.
    yes
        Do it without asking.
    as_json
        Print one JSON document.
    """
    from privyseal.agent.endurance import endure  # noqa: PLC0415 - extra `agent`
    from privyseal.cli.processes import keep_to_errors  # noqa: PLC0415
    from privyseal.cli.token_host import choose_key, opened, parse_key_id  # noqa: PLC0415

    keep_to_errors()  # each recovery is counted in what the command says itself
    if not 1 <= soak <= _MOST:
        raise ConfigError("usage.arguments", f"--soak must be 1 to {_MOST:,}, not {soak}")
    wanted = parse_key_id(key_id)
    confirm(f"Make {soak} signatures of random digests, outside the log?", yes=yes)

    async def run() -> "Endured":
        async with opened(directory, name) as token:
            with watching(quiet=as_json) as watcher:
                return await endure(
                    token,
                    lambda keys: choose_key(keys, wanted),
                    soak,
                    lambda done: watcher.show("sign", done, soak, 0),
                )

    endured = asyncio.run(run())
    emit(_data(endured), _lines(endured), as_json=as_json)


def _data(endured: "Endured") -> dict[str, Any]:
    return {
        "asked": endured.asked,
        "signed": len(endured.seconds),
        "wrong": endured.wrong,
        "milliseconds": {f"p{percent:g}": _milliseconds(endured, percent) for percent in (50, 90, 99, 100)},
        "failures": dict(endured.failures),
        "recoveries": dict(endured.recoveries),
        "logins": endured.logins,
        "workers": endured.workers,
    }


def _milliseconds(endured: "Endured", percent: float) -> float:
    return round(endured.percentile(percent) * 1000, 1)


def _lines(endured: "Endured") -> Iterable[str]:
    total = sum(endured.seconds)
    rate = f", {len(endured.seconds) / total:.1f} a second" if total else ""
    yield f"signed   {len(endured.seconds)} of {endured.asked}{rate}; {endured.wrong} do not verify"
    times = tuple(f"{_milliseconds(endured, percent):g}" for percent in (50, 90, 99, 100))
    yield from table([("", "p50", "p90", "p99", "longest"), ("ms", *times)])
    for what, counted in (("fault", endured.failures), ("recovery", endured.recoveries)):
        for name, count in counted.most_common():
            yield f"{what:<8} {count} times  {name}"
    yield f"logins   {endured.logins}, in {endured.workers} worker processes"
    if not endured.failures and not endured.recoveries:
        yield "no fault, nothing to recover from"
