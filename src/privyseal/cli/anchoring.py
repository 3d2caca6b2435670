# SPDX-License-Identifier: Apache-2.0
"""`privyseal log anchor`, and what `privyseal log verify` says of anchors."""

import datetime as dt
from typing import Any

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit
from privyseal.client.config import load_client_config
from privyseal.client.log_anchors import Anchored, request_anchor

__all__ = ["anchor", "anchor_data", "anchor_line"]


def anchor(*, as_json: AsJson = False, config: str = "") -> None:
    """Have one of the hub's TSAs timestamp the log's newest checkpoint; the token becomes an entry of the log.

    At most once a minute. The hub can do so by itself: `[anchor]` in hub.toml.

    Parameters
    ----------
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    made = request_anchor(load_client_config(config))
    moment = dt.datetime.fromtimestamp(made.time_ms / 1000, dt.UTC).isoformat()
    emit(
        {"index": made.index, "size": made.size, "time": moment, "tsa": made.tsa},
        (f"anchored  {made.size} entries at {moment}, by the TSA with certificate {made.tsa}: entry {made.index}",),
        as_json=as_json,
    )


def anchor_data(found: Anchored) -> dict[str, Any]:
    """For programs."""
    moment = None if found.gen_time is None else found.gen_time.isoformat()
    return {"index": found.index, "size": found.size, "time": moment, "tsa": found.subject}


def anchor_line(found: Anchored) -> str:
    """For people."""
    moment = "at a time that its token says elsewhere" if found.gen_time is None else f"at {found.gen_time.isoformat()}"
    judged = f", by {found.subject}" if found.subject else " (not judged: --tsa-trust)"
    return f"{found.size} entries {moment}{judged}"
