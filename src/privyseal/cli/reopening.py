# SPDX-License-Identifier: Apache-2.0
"""`privyseal log reopen`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.authority import AsJson, Authority
from privyseal.cli.render import emit
from privyseal.client.quorum_file import read_bounded
from privyseal.errors import ConfigError, MalformedInputError
from privyseal.identity.keyfile import load_ed25519
from privyseal.tlog.receipt import HEADER as RECEIPT_HEADER
from privyseal.tlog.receipt import MAX_RECEIPT_BYTES, parse_receipt

__all__ = ["reopen"]


def reopen(
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    authority: Authority = (),
    known: Annotated[tuple[Path, ...], Parameter(name="--known", negative="")] = (),
    damaged: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Give up a log whose newest entries are lost, and begin another one that cites it. On the hub's machine, stopped.

    Look for the newest database first: what is given up stays provable, and everybody sees that it was given up. The
    former log is put aside in the hub's directory. Agents and clients follow by themselves, because authority keys
    sign the change; what they had signed before stays verifiable. Requests under way end with log.reopened.

    Parameters
    ----------
    directory
        The hub's directory.
    authority
        Authority key file; as many as the trust bundle wants, repeated.
    known
        A receipt, or a file with a checkpoint, newer than what the hub has; may be repeated. They are cited, so that
        everybody knows what was lost; receipts under newer checkpoints than these are refused from then on.
    damaged
        Give the log up although nothing newer is known: its database is damaged.
    as_json
        Print one JSON document.
    """
    from privyseal.hub.reopening import reopen_log  # noqa: PLC0415 - needs the extra `hub`

    if not authority:
        raise ConfigError(
            "authority.missing",
            "this needs the authority key that `privyseal hub init` made",
            hint="name its file with --authority",
        )
    keys = tuple(load_ed25519(path) for path in authority)
    done = reopen_log(directory, keys, known=tuple(_note(path) for path in known), damaged=damaged)
    former = done.bundle.statement.former[-1].key.partition("+")[0]
    emit(
        {
            "log": done.bundle.origin,
            "former": former,
            "sizes": list(done.sizes),
            "serial": done.bundle.statement.serial,
            "archive": str(done.archive),
        },
        (
            f"gave up log {former}, cited at {', '.join(str(size) for size in done.sizes)} entries",
            f"began log {done.bundle.origin}, under trust bundle {done.bundle.statement.serial}",
            f"the former log, its key and its checkpoints: {done.archive} (keep them)",
            f"next: privyseal hub run --dir {directory}",
        ),
        as_json=as_json,
    )


def _note(path: Path) -> str:
    """The signed note in a file, or that of a receipt."""
    try:
        text = read_bounded(path, MAX_RECEIPT_BYTES).decode()
    except UnicodeDecodeError as error:
        raise MalformedInputError("note.malformed", f"the checkpoint {path} is not valid UTF-8") from error
    return parse_receipt(text).checkpoint if text.startswith(RECEIPT_HEADER) else text
