# SPDX-License-Identifier: Apache-2.0
"""Giving up a log whose newest entries are lost, and beginning another one that cites it (`privyseal log reopen`).

On the hub's machine, with the hub stopped, and with authority keys: agents and clients follow because the keys that
they have pinned signed the trust bundle that names the new log. The former log is kept aside as it is.

Files are written before the database changes, and put in place after it; run again after a crash, it goes on.
"""

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.hub.config import HubFiles, load_hub_config
from privyseal.hub.idle_database import idle_database
from privyseal.identity.bundle import FormerLog, TrustBundle, load_bundle, open_bundle, open_successor, seal_bundle
from privyseal.identity.keyfile import load_ml_dsa_44, save_private_key, write_public
from privyseal.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.note import NoteSigner
from privyseal.tlog.tree import EMPTY_ROOT

__all__ = ["ReopenedLog", "reopen_log"]

_CLOSED: Final = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReopenedLog:
    """What was done.

    Attributes:
        bundle: The trust bundle that names the new log; the hub shows it to agents and clients.
        archive: Where database, keys and checkpoints of the former log are kept.
        sizes: Sizes of the checkpoints of the former log that are cited.
    """

    bundle: TrustBundle
    archive: Path
    sizes: tuple[int, ...]


def reopen_log(
    directory: Path,
    authorities: tuple[Ed25519PrivateKey, ...],
    *,
    known: tuple[str, ...] = (),
    damaged: bool = False,
) -> ReopenedLog:
    """Give up the log of the hub in a directory.

    Args:
        directory: The hub's.
        authorities: As many authority keys as the trust bundle wants.
        known: Newer checkpoints of the former log that somebody holds, as signed notes: they are cited, too.
        damaged: Give it up although nothing newer is known: the database itself is damaged.

    Raises:
        ConfigError: `store.in_use` while the hub runs; what is missing or malformed.
        VerificationError: `bundle.quorum` without enough authority keys; what a checkpoint raises.
        LogIntegrityError: `log.reopen_whole` if the database is the newest that is known: then nothing is given up.
        UnavailableError: `store.unavailable`.
    """
    files = HubFiles(directory)
    database = idle_database(files, load_hub_config(directory))
    pinned = load_bundle(files.bundle)
    serial = pinned.statement.serial
    archive = directory / _CLOSED / f"{serial}"
    try:
        database.ensure_unused()
        found = database.head()
        if found is None or found[0] != pinned.origin:
            return _finish(files, pinned, archive)
        heads = _heads(files, pinned, (found[1], *known), damaged=damaged)
        bundle, first = _write_new(files, pinned, authorities, heads)
        _put_aside(files, archive)
        database.begin_another(archive, serial, origin=bundle.origin, note=first)
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(
            "store.unavailable",
            f"the log could not be given up: {error}",
            hint="stop the hub, check free space and permissions, and run the same command again",
        ) from error
    _put_in_place(files)
    return ReopenedLog(bundle=bundle, archive=archive, sizes=tuple(size for size, _ in heads))


def _heads(
    files: HubFiles, pinned: TrustBundle, notes: tuple[str, ...], *, damaged: bool
) -> tuple[tuple[int, str], ...]:
    """(size, note) of the newest checkpoints that are known: of the database, head.checkpoint, and what was given."""
    if files.head.is_file():
        notes = (*notes, files.head.read_text("utf-8"))
    found = {}
    for note in notes:
        checkpoint = open_checkpoint(note, origin=pinned.origin, verifiers=(pinned.log_key,))
        found[checkpoint.size, checkpoint.root] = note
    if len(found) == 1 and not damaged:
        raise LogIntegrityError(
            "log.reopen_whole",
            f"nothing is known of log {pinned.origin!r} beyond what this database holds: nothing need be given up",
            hint="if an agent or a witness has seen more, name its checkpoint with --known (`privyseal agent export`"
            " writes out an agent's); if the database is damaged, say --damaged",
        )
    return tuple((size, note) for (size, _), note in sorted(found.items()))


def _write_new(
    files: HubFiles,
    pinned: TrustBundle,
    authorities: tuple[Ed25519PrivateKey, ...],
    heads: tuple[tuple[int, str], ...],
) -> tuple[TrustBundle, str]:
    """The new log's key and the bundle that names it, beside those in force; the bundle, and the first checkpoint."""
    key = Ed25519PrivateKey.generate()
    statement = pinned.statement
    serial = statement.serial + 1
    signer = NoteSigner(name=f"{pinned.hub}/log/{serial}", key=key)
    # An ML-DSA-44 cosignature names its log: one key may speak for several.
    cosigner = Cosigner(name=signer.verifier.name, key=load_ml_dsa_44(files.log_mldsa_key))
    former = FormerLog(key=statement.log_key, heads=tuple(note for _, note in heads))
    successor = seal_bundle(
        msgspec.structs.replace(
            statement,
            serial=serial,
            log_key=signer.verifier.vkey,
            log_mldsa_key=cosigner.verifier.vkey,
            former=(*statement.former, former),
        ),
        authorities,
    )
    bundle = open_successor(successor.envelope, pinned)
    save_private_key(_new(files.log_key), key)
    write_public(_new(files.bundle), bundle.envelope)
    empty = Checkpoint(origin=bundle.origin, size=0, root=EMPTY_ROOT)
    return bundle, sign_checkpoint(empty, signer)


def _put_aside(files: HubFiles, archive: Path) -> None:
    """A copy of what the former log had beside its database."""
    archive.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (files.log_key, files.bundle, files.head):
        if path.is_file():
            shutil.copy2(path, archive / path.name)


def _finish(files: HubFiles, pinned: TrustBundle, archive: Path) -> ReopenedLog:
    """The database was emptied before, and the process ended then: put the new files in place."""
    try:
        bundle = open_bundle(_new(files.bundle).read_bytes())
    except (OSError, PrivysealError) as error:
        raise ConfigError(
            "log.origin",
            f"the database does not hold log {pinned.origin!r}, and no reopening is under way here",
            hint="bring back the database that belongs to this hub",
        ) from error
    _put_in_place(files)
    sizes = tuple(
        open_checkpoint(head, origin=pinned.origin, verifiers=(pinned.log_key,)).size
        for head in bundle.statement.former[-1].heads
    )
    return ReopenedLog(bundle=bundle, archive=archive, sizes=sizes)


def _put_in_place(files: HubFiles) -> None:
    files.head.unlink(missing_ok=True)
    for path in (files.log_key, files.bundle):
        if _new(path).exists():
            _new(path).replace(path)


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".new")
