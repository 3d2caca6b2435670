# SPDX-License-Identifier: Apache-2.0
"""`privyseal log`."""

import datetime as dt
import json
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.render import emit
from privyseal.cli.witnessing import Policy, verify_cosigned, witness
from privyseal.client.config import load_client_config
from privyseal.client.log import LogReader

__all__ = ["show", "verify", "witness"]


def verify(
    checkpoint: str = "",
    /,
    *,
    witnesses: Annotated[tuple[str, ...], Parameter(name="--witness", negative="")] = (),
    policy: Policy = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Recompute the whole log from its first entry: form, order, pairs of intent and result, fences, times, root.

    With --witness or --policy, check a cosigned checkpoint instead.

    Parameters
    ----------
    checkpoint
        File with a cosigned checkpoint.
    witnesses
        Verifier key of a witness that must have cosigned it; may be repeated.
    policy
        Quorum policy (c2sp.org/tlog-policy) that its cosignatures must meet.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    if checkpoint or witnesses or policy is not None:
        verify_cosigned(checkpoint, keys=witnesses, policy=policy, as_json=as_json, config=config)
        return
    verified = LogReader(load_client_config(config)).verify()
    summary = verified.summary
    emit(
        {
            "verified": True,
            "origin": verified.origin,
            "size": summary.size,
            "root": summary.root.hex(),
            "signatures": summary.signatures,
            "open_intents": list(summary.open_intents),
            "entries": dict(summary.counts),
        },
        (
            f"verified  log {verified.origin}: {summary.size} entries, root {summary.root.hex()}",
            "entries   " + ", ".join(f"{count} {kind}" for kind, count in summary.counts),
            f"          {summary.signatures} signatures, {len(summary.open_intents)} open intents",
        ),
        as_json=as_json,
    )


def show(
    *,
    last: int = 20,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Print the newest entries, with --json one JSON object a line.

    Parameters
    ----------
    last
        How many entries.
    as_json
        Print JSON Lines: index and entry.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    reader = LogReader(load_client_config(config))
    size = reader.checkpoint().size
    for index, data in reader.entries(max(0, size - last), size):
        entry = json.loads(data)
        kind, moment = entry.pop("t"), dt.datetime.fromtimestamp(entry.pop("ts") / 1000, dt.UTC)
        fields = " ".join(f"{name}={_short(value)}" for name, value in entry.items() if name != "v")
        line = f"{index:>6}  {moment:%Y-%m-%d %H:%M:%S}  {kind:<9} {fields}"
        emit({"index": index, "entry": json.loads(data)}, (line,), as_json=as_json)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text if len(text) <= 24 else text[:16] + "…"
