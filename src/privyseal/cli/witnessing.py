# SPDX-License-Identifier: Apache-2.0
"""`privyseal log witness`, and what `privyseal log verify` does with a cosigned checkpoint."""

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit, say
from privyseal.client.config import load_client_config
from privyseal.client.cosigning import renew_receipt
from privyseal.client.log import LogReader
from privyseal.client.quorum_file import load_policy, read_bounded
from privyseal.client.receipts import read_receipt
from privyseal.client.witness_http import check_witness_url
from privyseal.client.witnessing import Witnessed, witness_newest
from privyseal.errors import ConfigError, LogIntegrityError
from privyseal.identity.keyfile import write_public
from privyseal.tlog.cosignature import LogKey, parse_cosigner_vkey
from privyseal.tlog.note import MAX_NOTE_BYTES
from privyseal.tlog.quorum import (
    CosignedCheckpoint,
    QuorumPolicy,
    open_cosigned,
    policy_of_all,
)

__all__ = ["Policy", "cosign", "verify_cosigned", "witness"]

Policy = Annotated[Path | None, Parameter(name="--policy")]


def witness(
    *,
    to: str = "",
    keys: Annotated[tuple[str, ...], Parameter(name="--witness")] = (),
    policy: Policy = None,
    out: Path | None = None,
    as_json: AsJson = False,
    config: str = "",
) -> None:
    """Have the hub's newest checkpoint cosigned: by one witness, or by those of a quorum policy.

    Parameters
    ----------
    to
        URL of the witness.
    keys
        The witness's verifier key, as `privyseal witness show` prints it; if named twice, each key must cosign.
    policy
        Quorum policy (c2sp.org/tlog-policy); all its witnesses with a URL are asked, and the quorum must be met.
    out
        Where to write the cosigned checkpoint (default: stdout).
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    witnessed = _ask(LogReader(load_client_config(config)), _asked(to, keys, policy), out)
    if out is not None:
        write_public(out, witnessed.note.encode())
    document, lines = _told(witnessed.opened)
    missing = {name: error.code for name, error in witnessed.missing}
    if out is None and not as_json:
        emit({}, witnessed.note.removesuffix("\n").split("\n"), as_json=False)
        say("\n".join(lines))
    else:
        emit({**document, "missing": missing, "note": witnessed.note}, lines, as_json=as_json)
    _tell_missing(witnessed)


def cosign(
    *receipts: Path,
    to: str = "",
    keys: Annotated[tuple[str, ...], Parameter(name="--witness")] = (),
    policy: Policy = None,
    as_json: AsJson = False,
    config: str = "",
) -> None:
    """Have the hub's newest checkpoint cosigned, and prove each receipt's entry under it: for `verify --policy`.

    The receipts' files are replaced; what they proved before they still prove.

    Parameters
    ----------
    receipts
        Receipts (FILE.tlog-proof).
    to
        URL of the witness.
    keys
        The witness's verifier key, as `privyseal witness show` prints it; if named twice, each key must cosign.
    policy
        Quorum policy (c2sp.org/tlog-policy); all its witnesses with a URL are asked, and the quorum must be met.
    as_json
        Print one JSON document for each receipt, one a line.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    if not receipts:
        raise ConfigError("usage.arguments", "no receipt was named", hint="privyseal log cosign FILE.tlog-proof...")
    log, asked = LogReader(load_client_config(config)), _asked(to, keys, policy)
    texts = {path: read_receipt(path) for path in receipts}
    witnessed = _ask(log, asked, receipts[0])
    _tell_missing(witnessed)
    size, names = witnessed.opened.checkpoint.size, [name for name, _ in witnessed.opened.cosigned]
    for path, text in texts.items():
        receipt = renew_receipt(log, text, witnessed.note)
        write_public(path, receipt.encode().encode())
        emit(
            {"receipt": str(path), "index": receipt.index, "size": size, "cosigned": names},
            (f"cosigned  {path}: entry {receipt.index} of {size}, by {', '.join(names) or 'nobody'}",),
            as_json=as_json,
        )


def _asked(to: str, keys: tuple[str, ...], policy: Path | None) -> QuorumPolicy:
    if (policy is None) != bool(to and keys) or (policy is not None and (to or keys)):
        raise ConfigError("usage.witness", "give either --to URL and --witness VKEY, or --policy FILE")
    return load_policy(policy) if policy is not None else _single(to, keys)


def _ask(log: LogReader, asked: QuorumPolicy, out: Path | None) -> Witnessed:
    """Ask the witnesses; of a log that they refuse, what the hub showed is kept beside `out`."""
    try:
        return witness_newest(log, asked)
    except LogIntegrityError:
        if out is not None:
            evidence = out.with_name(out.name + ".refused")
            write_public(evidence, log.shown)
            say(f"the hub's checkpoint is kept in {evidence}")
        raise


def _tell_missing(witnessed: Witnessed) -> None:
    for name, error in witnessed.missing:
        say(f"not cosigned by {name}: {error}")


def verify_cosigned(checkpoint: str, *, keys: tuple[str, ...], policy: Path | None, as_json: bool, config: str) -> None:
    """Check a cosigned checkpoint in a file: by a quorum policy, or all of the named witnesses.

    Raises:
        VerificationError: `quorum.not_met`, `note.unsigned` and their like.
        ConfigError: `usage.witness`, and what is missing.
    """
    if not checkpoint or bool(keys) == (policy is not None):
        raise ConfigError("usage.witness", "give a checkpoint's file, and either --witness VKEY or --policy FILE")
    data = read_bounded(Path(checkpoint), MAX_NOTE_BYTES)
    asked = policy_of_all(tuple(parse_cosigner_vkey(key) for key in keys)) if policy is None else load_policy(policy)
    logs: tuple[LogKey, ...] = tuple(log.key for log in asked.logs)
    also: tuple[LogKey, ...] = ()
    if not logs:
        bundle = load_client_config(config).load_bundle()
        logs, also = (bundle.log_key,), (bundle.log_mldsa_key,)
    document, lines = _told(open_cosigned(data, asked, logs, also=also))
    emit(document, lines, as_json=as_json)


def _single(url: str, vkeys: tuple[str, ...]) -> QuorumPolicy:
    check_witness_url(url)
    policy = policy_of_all(tuple(parse_cosigner_vkey(vkey) for vkey in vkeys))
    return replace(policy, witnesses=tuple(replace(one, url=url) for one in policy.witnesses))


def _told(opened: CosignedCheckpoint) -> tuple[dict[str, Any], tuple[str, ...]]:
    checkpoint = opened.checkpoint
    times = [(name, _time(one.seconds) if one.seconds else None) for name, one in opened.cosigned]
    document = {
        "verified": True,
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "cosigned": [{"witness": name, "time": moment} for name, moment in times],
    }
    return document, (
        f"verified  log {checkpoint.origin}: {checkpoint.size} entries, root {checkpoint.root.hex()}",
        *(f"cosigned  {moment or 'without a time'} by {name}" for name, moment in times),
    )


def _time(seconds: int) -> str:
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"  # a witness's clock may say anything
