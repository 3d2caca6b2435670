# SPDX-License-Identifier: Apache-2.0
"""What SignTool says: results on stdout, errors and warnings on stderr, and a count of each at the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from privyseal.cli.render import emit, say
from privyseal.cli.signtool.arguments import Arguments
from privyseal.errors import LogIntegrityError, MalformedInputError, PrivysealError

__all__ = ["Talk", "each_file"]

#: Hints name our flags; here there are others.
_IN_THEIR_WORDS: Final = (
    ("--trust ROOT.pem", "under `trust` in client.toml"),
    ("--timestamp", "/tr"),
    ("sign with --placement replace", "sign without /as"),
    ("another place with -o", "work elsewhere"),
)
_SUCCESS, _FAILURE, _WARNINGS = 0, 1, 2


class Talk:
    """Says what happens, as much of it as the flags ask for, and counts."""

    def __init__(self) -> None:
        self.is_verbose = False
        self._is_quiet = False
        self._done = self._warnings = self._errors = 0

    def listen_to(self, arguments: Arguments) -> None:
        """Say as much as /q, /v and /debug ask for."""
        self.is_verbose = arguments.has("v") or arguments.has("debug")
        self._is_quiet = arguments.has("q") and not self.is_verbose

    def done(self, *lines: str) -> None:
        """A file is through."""
        self._done += 1
        self.tell(*lines)

    def tell(self, *lines: str) -> None:
        """Say it unless /q is given."""
        if not self._is_quiet:
            emit({}, lines, as_json=False)

    def detail(self, *lines: str) -> None:
        """Say it with /v or /debug."""
        if self.is_verbose:
            emit({}, lines, as_json=False)

    def explain(self, *lines: str) -> None:
        """Say why something failed, also with /q."""
        for line in lines:
            say(line)

    def note(self, message: str) -> None:
        """Something that is worth knowing, and no warning."""
        if not self._is_quiet:
            say(f"SignTool Note: {message}")

    def warning(self, message: str) -> None:
        """It works, and somebody should know: exit code 2."""
        self._warnings += 1
        say(f"SignTool Warning: {message}")

    def error(self, error: PrivysealError, path: Path | None = None) -> None:
        """What happened, to which object, and what to do next: exit code 1."""
        self._errors += 1
        place = "" if path is None or str(path) in error.message else f"{path}: "
        say(f"SignTool Error: {place}{error}")
        hint = error.hint
        for ours, theirs in _IN_THEIR_WORDS:
            hint = hint.replace(ours, theirs)
        if hint:
            say(f"  next: {hint}")

    def end(self, verb: str) -> int:
        """The exit code, after the counts."""
        counts = (
            f"Number of files successfully {verb}: {self._done}",
            f"Number of warnings: {self._warnings}",
            f"Number of errors: {self._errors}",
        )
        if self._errors:
            self.tell("", *counts)
            return _FAILURE
        self.detail("", *counts)
        return _WARNINGS if self._warnings else _SUCCESS


def each_file(arguments: Arguments, talk: Talk, act: Callable[[Path], None]) -> None:
    """Do it with each file; one that fails does not stop the others."""
    for name in dict.fromkeys(arguments.files):
        try:
            act(Path(name))
        except LogIntegrityError:
            raise
        except PrivysealError as error:
            talk.error(error, Path(name))
        except OSError as error:
            message = f"cannot use {name}: {error.strerror or error}"
            talk.error(MalformedInputError("file.unreadable", message))
