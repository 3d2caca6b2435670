# SPDX-License-Identifier: Apache-2.0
"""Taking a log that is given up out of its database, so that another can begin there (`privyseal log reopen`)."""

from typing import Final

from privyseal.storage.calls import Query
from privyseal.tlog.tree import EMPTY_ROOT

__all__ = ["copy_log", "empty_log", "stored_head"]

_LOG_TABLES: Final = ("log_entry", "log_node", "log_checkpoint", "log_cosigned", "log_head", "agent_event")
_HEAD: Final = "SELECT origin, note FROM log_head"
_BEGIN: Final = "INSERT INTO log_head (id, origin, size, root, note) VALUES (1, ?, 0, ?, ?)"
_CODE: Final = "log.reopened"
_MESSAGE: Final = (
    "the request was made under a log that was given up; make it again, and compare with the former log whether it was"
    " signed"
)
#: Requests stay, so that their idempotency keys stay used; what became of them stands in the former log.
_END_JOBS: Final = (
    "UPDATE job SET state = 'failed', signature = ?, result_index = NULL, intent_index = NULL,"
    " branch = 'conflict', code = ?, message = ? WHERE state <> 'failed'"
)


async def stored_head() -> tuple[str, str] | None:
    """Origin and newest checkpoint of the log in a database; None if it holds none."""
    rows = await Query(_HEAD)
    return None if not rows else (str(rows[0][0]), str(rows[0][1]))


async def copy_log(prefix: str) -> None:
    """Copy the log's tables to others of the same database, whose names begin so; once. In one transaction."""
    for table in _LOG_TABLES:
        await Query(f"CREATE TABLE IF NOT EXISTS {prefix}_{table} AS SELECT * FROM {table}")  # noqa: S608 - of this package


async def empty_log(origin: str, note: str) -> None:
    """Put an empty log in its place, and end every job: its entries are gone, its signature is without a receipt.

    In one transaction.

    Args:
        origin: Of the log that begins.
        note: Its checkpoint of size 0, signed.
    """
    for table in _LOG_TABLES:
        await Query(f"DELETE FROM {table}")  # noqa: S608 - a constant
    await Query(_BEGIN, (origin, EMPTY_ROOT, note))
    await Query(_END_JOBS, (b"", _CODE, _MESSAGE))
