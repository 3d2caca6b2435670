# SPDX-License-Identifier: Apache-2.0
"""What commands print: data on stdout, talk on stderr; for people, or with --json one JSON document."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from privyseal.errors import PrivysealError

__all__ = ["emit", "emit_error", "error_document", "printable", "say", "table"]


def emit(data: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result: `data` for programs, `lines` for people."""
    if as_json:
        print(_json(data))  # noqa: T201
    else:
        for line in lines:
            print(_encodable(printable(line).replace("\n", "?")))  # noqa: T201


def say(message: str) -> None:
    """Talk: to stderr, so that stdout stays data."""
    # In one piece: several threads talk while files are signed.
    print(printable(message) + "\n", end="", file=sys.stderr)  # noqa: T201


def emit_error(error: PrivysealError, *, as_json: bool) -> None:
    """Say what happened, to which object, and what to do next."""
    if as_json:
        print(_json({"error": error_document(error)}))  # noqa: T201
    say(f"privyseal: {printable(error.message)} [{error.code}]")
    if error.hint:
        say(f"  next: {printable(error.hint)}")


def error_document(error: PrivysealError) -> dict[str, Any]:
    """An error for programs."""
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit": error.exit_status,
        "retryable": error.retryable,
    }


def _json(data: dict[str, Any]) -> str:
    text = json.dumps(data, ensure_ascii=False)
    if text.isprintable() and _encodable(text) == text:
        return text
    # A file name may hold what moves a cursor (a terminal takes U+009B for a control sequence, too), what standard
    # output cannot carry, or bytes that are no Unicode, kept as lone surrogates: only escapes say that.
    return json.dumps(data).replace("\x7f", "\\u007f")


def _encodable(text: str) -> str:
    """The text with `?` for what standard output cannot carry."""
    encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding or "utf-8"  # None: it was closed by the caller
    return text.encode(encoding, "replace").decode(encoding)


def printable(text: str) -> str:
    """Text that cannot move a terminal's cursor: file names are somebody else's words."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def table(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    """Rows as aligned columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
