# SPDX-License-Identifier: Apache-2.0
"""`privyseal log`."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final, get_args

from cyclopts import Parameter

from privyseal.cli.agent_records import comparing, verdict_data, verdict_lines
from privyseal.cli.anchoring import anchor, anchor_data, anchor_line
from privyseal.cli.moments import moment_text, parse_moment
from privyseal.cli.pruning import prune
from privyseal.cli.render import emit, say
from privyseal.cli.reopening import reopen
from privyseal.cli.searching import find, report
from privyseal.cli.witnessing import Policy, cosign, verify_cosigned, witness
from privyseal.client.config import load_client_config
from privyseal.client.log import LogReader, PublicLog
from privyseal.client.log_access import open_log
from privyseal.client.log_agents import AgentVerdict
from privyseal.client.log_anchors import AnchorCheck
from privyseal.client.log_export import export_log
from privyseal.client.log_files import VerifiedLog, verify_log
from privyseal.client.log_kept import KeptCheckpoint
from privyseal.client.log_tail import Chosen, LogTail, Shown
from privyseal.client.log_tail import follow as follow_log
from privyseal.client.verifying import read_roots
from privyseal.errors import ConfigError
from privyseal.tlog.entry import Entry

__all__ = ["anchor", "cosign", "export", "find", "prune", "reopen", "report", "show", "verify", "witness"]

_NEWEST: Final = 20


def verify(  # noqa: PLR0913 - a command's options
    log: str = "",
    /,
    *,
    bundle: Path | None = None,
    vkey: str = "",
    witnesses: Annotated[tuple[str, ...], Parameter(name="--witness", negative="")] = (),
    policy: Policy = None,
    agents: Annotated[tuple[Path, ...], Parameter(name="--agent", negative="")] = (),
    kept: Annotated[tuple[Path, ...], Parameter(name="--checkpoint", negative="")] = (),
    tsa_trust: tuple[Path, ...] = (),
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Recompute the whole log from its first entry: form, order, pairs of intent and result, fences, times, root.

    Every tile and every stored checkpoint is compared as well. The key is that of the pinned trust bundle,
    unless --bundle or --vkey names another. With --witness or --policy, check a cosigned checkpoint instead.

    Parameters
    ----------
    log
        A directory that `privyseal log export` wrote, or the http(s) URL at which it is served (default: the hub); or a
        file with a cosigned checkpoint.
    bundle
        Trust bundle that names the log's key.
    vkey
        The log's key itself (C2SP signed-note verifier key).
    witnesses
        Verifier key of a witness that must have cosigned the checkpoint; may be repeated.
    policy
        Quorum policy (c2sp.org/tlog-policy) that the checkpoint's cosignatures must meet.
    agents
        What an agent signed under, as `privyseal agent export` wrote it: must stand in the log. May be repeated.
    kept
        A checkpoint that was kept elsewhere, such as the hub's `head.checkpoint`: the log must extend it. May be
        repeated.
    tsa_trust
        PEM file with roots of TSAs: then each anchor's timestamp token must lead to one. May be repeated.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    if witnesses or policy is not None or (log and Path(log).is_file()):
        if bundle is not None or vkey or agents or kept:
            raise ConfigError(
                "log.key", "--bundle, --vkey, --agent and --checkpoint are for a whole log, not for a checkpoint's file"
            )
        verify_cosigned(log, keys=witnesses, policy=policy, as_json=as_json, config=config)
        return
    opened = open_log(log, bundle=bundle, vkey=vkey, config=config)
    _verify_whole(opened, agents, kept, tsa_trust, as_json=as_json)


def _verify_whole(
    opened: PublicLog,
    agents: tuple[Path, ...],
    kept: tuple[Path, ...],
    tsa_trust: tuple[Path, ...],
    *,
    as_json: bool,
) -> None:
    anchors = AnchorCheck(opened, read_roots(tsa_trust))
    heads = tuple(KeptCheckpoint(opened, path) for path in kept)
    with comparing(agents, opened) as comparisons:
        verified = verify_log(opened, (anchors, *heads, *comparisons))
        verdicts = tuple(comparison.verdict() for comparison in comparisons)
    _print_verified(verified, anchors, heads, verdicts, as_json=as_json)


def _print_verified(
    verified: VerifiedLog,
    anchors: AnchorCheck,
    heads: tuple[KeptCheckpoint, ...],
    verdicts: tuple[AgentVerdict, ...],
    *,
    as_json: bool,
) -> None:
    summary = verified.summary
    data = {
        "verified": True,
        "origin": verified.origin,
        "size": summary.size,
        "root": summary.root.hex(),
        "signatures": summary.signatures,
        "open_intents": list(summary.open_intents),
        "entries": dict(summary.counts),
        "pruned": summary.pruned,
        "tiles": verified.tiles,
        "checkpoints": verified.checkpoints,
        "beyond": verified.beyond,
    }
    lines = [
        f"verified  log {verified.origin}: {summary.size} entries, root {summary.root.hex()}",
        "entries   " + ", ".join(f"{count} {kind}" for kind, count in summary.counts),
        f"          {summary.signatures} signatures, {len(summary.open_intents)} open intents",
        f"          {verified.tiles} tiles, {verified.checkpoints} stored checkpoints",
    ]
    if summary.pruned:
        lines.append(f"          the first {summary.pruned} entries were pruned, as the log says: their hashes remain")
    if verified.beyond:
        lines.append(f"          {verified.beyond} files lie beyond the checkpoint: an export was cut off")
    more, more_lines = _held_against(anchors, heads, verdicts)
    emit({**data, **more}, (*lines, *more_lines), as_json=as_json)


def _held_against(
    anchors: AnchorCheck, heads: tuple[KeptCheckpoint, ...], verdicts: tuple[AgentVerdict, ...]
) -> tuple[dict[str, Any], list[str]]:
    """What else the log was held against: for programs, and for people."""
    data: dict[str, Any] = {}
    lines: list[str] = []
    if anchors.newest is not None:
        data["anchors"] = {"count": anchors.count, "newest": anchor_data(anchors.newest)}
        lines.append(f"anchors   {anchors.count}, the newest: {anchor_line(anchors.newest)}")
    if heads:
        data["extends"] = [{"file": str(head.path), "size": head.checkpoint.size} for head in heads]
        lines += [f"extends   {head.path}: {head.checkpoint.size} entries" for head in heads]
    if verdicts:
        data["agents"] = [verdict_data(verdict) for verdict in verdicts]
        lines += [line for verdict in verdicts for line in verdict_lines(verdict)]
    return data, lines


def export(
    folder: Path,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Write the hub's log into a directory that any web server can serve (C2SP tlog-tiles).

    Run again, it adds what is new; tiles that a checkpoint covers are never written again. A checkpoint is published
    last, and only if the entries give its root and the directory's former checkpoint comes out on the way.

    Parameters
    ----------
    folder
        Where to; made if it is not there.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    done = export_log(LogReader(load_client_config(config)), folder)
    emit(
        {"origin": done.origin, "size": done.size, "added": done.added, "checkpoints": done.checkpoints},
        (f"exported  log {done.origin}: {done.size} entries, {done.added} of them new, to {folder}",),
        as_json=as_json,
    )


def show(
    *,
    last: int | None = None,
    kinds: Annotated[tuple[str, ...], Parameter(name="--type", negative="")] = (),
    since: str = "",
    follow: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Print the newest entries, with --json one JSON object a line.

    Parameters
    ----------
    last
        How many entries (default: 20, with --since all).
    kinds
        Entries of this type alone, for example `result`. May be repeated.
    since
        Entries from this day or moment on (ISO 8601, UTC unless it says otherwise).
    follow
        Go on with new entries as they come, until interrupted.
    as_json
        Print JSON Lines: index and entry.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    _check_types(kinds)
    if last is None and not since:
        last = _NEWEST
    chosen = Chosen(kinds=frozenset(kinds), since=parse_moment(since), last=None if last is None else max(0, last))
    tail = LogTail(LogReader(load_client_config(config)), chosen)
    _print(tail.newest(), as_json=as_json)
    if follow:
        for batch in follow_log(tail, wait=time.sleep, trouble=lambda error: say(f"{error.message}; asking again")):
            _print(batch, as_json=as_json)


def _check_types(kinds: tuple[str, ...]) -> None:
    known = sorted(str(kind.__struct_config__.tag) for kind in get_args(Entry))
    for kind in kinds:
        if kind not in known:
            raise ConfigError("log.type", f"{kind!r} is no entry type", hint=f"the types are {', '.join(known)}")


def _print(entries: tuple[Shown, ...], *, as_json: bool) -> None:
    for shown in entries:
        fields = " ".join(
            f"{name}={_short(value)}" for name, value in shown.entry.items() if name not in {"v", "t", "ts"}
        )
        moment = moment_text(shown.entry["ts"])
        line = f"{shown.index:>6}  {moment}  {shown.entry['t']:<9} {fields}"
        emit({"index": shown.index, "entry": shown.entry}, (line,), as_json=as_json)
    # Whoever follows through a pipe wants each entry now.
    sys.stdout.flush()


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return text if len(text) <= 24 else text[:16] + "…"
