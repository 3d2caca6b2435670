# SPDX-License-Identifier: Apache-2.0
"""Writes docs/errors/: a page for each branch of errors, a section for each code.

What the program says is read from its source: every call of an error class in src/ with its code, message and hint.
What a person needs to know beyond that stands in docs/errors/explanations.toml; a code without an entry there shows
its hints, and without hints what is said of its family. `--check` writes nothing, and fails if a page is not as it
would be written.
"""

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from privyseal import errors
from privyseal.errors import PrivysealError

__all__ = ["collected", "pages", "stale", "unexplained"]

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "docs" / "errors"
_CODE: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*)+")
#: What looks like a code and is the name of a file.
_FILE_ENDINGS: Final = (".toml", ".json", ".key", ".db", ".pem", ".md", ".sh", ".py", ".sock")
_CLASSES: Final = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, PrivysealError) and value is not PrivysealError
}
#: The policy's reasons reach the client as the errors of this class.
_REASONS: Final = {"Reason": errors.DeniedError}
_HEAD: Final = "<!-- Written by tools/error_pages.py from src/ and explanations.toml; `make docs` renews it. -->\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """An entry of explanations.toml.

    Attributes:
        means: What has happened, in more words than the message has.
        do: What to do, in order.
        retry: Whether trying again helps, if the branch's answer is not right for this code.
        branch: For a code that the source does not write beside a class of errors.
    """

    means: str = ""
    do: str = ""
    retry: str = ""
    branch: str = ""


@dataclass(slots=True, kw_only=True)
class Code:
    """A code as the source uses it; messages and hints as templates, in the order of the source."""

    name: str
    kind: type[PrivysealError]
    messages: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def collected(source: Path = ROOT / "src") -> dict[str, Code]:
    """Every code that stands in a call of an error class."""
    found: dict[str, Code] = {}
    for path in sorted(source.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"), str(path))
        constants = _constants(tree)
        for call, kind in _error_calls(tree):
            given = _arguments(call)
            for name in _codes(given.get("code"), constants):
                code = found.setdefault(name, Code(name=name, kind=kind))
                for text, texts in ((given.get("message"), code.messages), (given.get("hint"), code.hints)):
                    template = _template(text, constants)
                    if template and template not in texts:
                        texts.append(template)
    return found


def _error_calls(tree: ast.Module) -> Iterator[tuple[ast.Call, type[PrivysealError]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            kind = (_CLASSES | _REASONS).get(name)
            if kind is not None:
                yield node, kind


def _arguments(call: ast.Call) -> dict[str, ast.expr]:
    named = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
    return dict(zip(("code", "message"), call.args, strict=False)) | named


def _constants(tree: ast.Module) -> dict[str, str]:
    """Texts that a module gives a name."""
    found = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
            found[target.id] = value.value
    return found


def _codes(node: ast.expr | None, constants: dict[str, str]) -> tuple[str, ...]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return (node.value,)
    if isinstance(node, ast.Name) and node.id in constants:
        return (constants[node.id],)
    if isinstance(node, ast.IfExp):
        return (*_codes(node.body, constants), *_codes(node.orelse, constants))
    return ()


def _template(node: ast.expr | None, constants: dict[str, str]) -> str:
    """The text with the names of what is filled in; empty if it is not written out there."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return constants.get(node.id, "")
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(value, constants) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left, constants) + _template(node.right, constants)
    return ""


def _part(node: ast.expr, constants: dict[str, str]) -> str:
    if not isinstance(node, ast.FormattedValue):
        return _template(node, constants)
    value = node.value
    if isinstance(value, ast.Name):
        return constants.get(value.id, f"{{{value.id.strip('_')}}}")
    return f"{{{value.attr.strip('_')}}}" if isinstance(value, ast.Attribute) else "{…}"


def loose_codes(source: Path = ROOT / "src") -> set[str]:
    """Texts in the source that look like a code of a known family, but stand beside no class of errors."""
    known = collected(source)
    families = {name.partition(".")[0] for name in known}
    texts = {
        node.value
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {
        text
        for text in texts - known.keys()
        if _CODE.fullmatch(text) and text.partition(".")[0] in families and not text.endswith(_FILE_ENDINGS)
    }


def explanations(path: Path = FOLDER / "explanations.toml") -> dict[str, Explanation]:
    """The hand-written part."""
    return {name: Explanation(**entry) for name, entry in tomllib.loads(path.read_text("utf-8")).items()}


def unexplained() -> list[str]:
    """Codes of which nobody says what to do: no entry, no hint, no entry for their family; and loose ones."""
    told, found = explanations(), all_codes()
    silent = [name for name, code in found.items() if not _explanation(code, told).do and not code.hints]
    return sorted({*silent, *(loose_codes() - found.keys())})


def stale() -> list[str]:
    """Entries for codes and families that the source does not use any more."""
    found = all_codes()
    families = {f"{name.partition('.')[0]}.*" for name in found}
    return sorted(name for name in explanations() if name not in found and name not in families)


def _explanation(code: Code, told: dict[str, Explanation]) -> Explanation:
    """The code's own entry; its family's if the source has no hint for it either."""
    if code.name in told:
        return told[code.name]
    family = told.get(f"{code.name.partition('.')[0]}.*")
    return Explanation() if family is None or code.hints else family


def all_codes() -> dict[str, Code]:
    """What the source shows, and what only explanations.toml can tell of."""
    found = collected()
    for name, entry in explanations().items():
        if entry.branch and name not in found:
            found[name] = Code(name=name, kind=errors.branch_named(entry.branch))
    return found


def pages() -> dict[str, str]:
    """Names and contents of all pages."""
    told, by_kind = explanations(), defaultdict(list)
    for code in sorted(all_codes().values(), key=lambda one: one.name):
        by_kind[code.kind].append(code)
    written = {f"{kind.branch}.md": _page(kind, codes, told) for kind, codes in by_kind.items()}
    return {"README.md": _index(by_kind)} | written


def _page(kind: type[PrivysealError], codes: list[Code], told: dict[str, Explanation]) -> str:
    says = (kind.__doc__ or "").partition("\n")[0]
    head = (
        f"{_HEAD}# Errors: {kind.branch}\n\n{says}\n\nExit code {kind.exit_status}, HTTP status {kind.http_status}.\n"
    )
    return head + "".join(_section(code, _explanation(code, told)) for code in codes)


def _section(code: Code, entry: Explanation) -> str:
    default = "Retrying later may help." if code.kind.retryable else "Retrying alone does not help."
    lines = [f'\n<a id="{code.name}"></a>\n', f"## {code.name}\n"]
    if entry.means:
        lines.append(f"{entry.means}\n")
    lines += [f"> {_escaped(message)}\n" for message in code.messages]
    if entry.do:
        lines.append(f"**What to do.** {entry.do}\n")
    elif code.hints:
        lines.append("**What to do.** " + " Or: ".join(_sentence(_escaped(hint)) for hint in code.hints) + "\n")
    lines.append(f"{entry.retry or default} Exit code {code.kind.exit_status}, HTTP status {code.kind.http_status}.\n")
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_<>`\[\]|])", r"\\\1", " ".join(text.split()))


def _index(by_kind: dict[type[PrivysealError], list[Code]]) -> str:
    lines = [
        _HEAD + "# Errors\n",
        "Every error ends in a code in brackets, such as `[token.pin_locked]`; with `--json`, and in the hub's",
        "answers, it is the field `code`. A code belongs to one branch, which fixes exit code and HTTP status.\n",
        "| branch | exit | HTTP | retry | codes |",
        "|---|---|---|---|---|",
    ]
    for kind in sorted(by_kind, key=lambda one: (one.exit_status, one.branch)):
        codes = " ".join(f"[{code.name}]({kind.branch}.md#{code.name})" for code in by_kind[kind])
        retry = "may help" if kind.retryable else "no"
        link = f"[{kind.branch}]({kind.branch}.md)"
        lines.append(f"| {link} | {kind.exit_status} | {kind.http_status} | {retry} | {codes} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check compare them."""
    wanted = pages()
    present = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.md")}
    if "--check" in arguments:
        wrong = sorted(name for name in wanted | present if wanted.get(name) != present.get(name))
        if wrong:
            print(f"docs/errors is not up to date: {', '.join(wrong)}; run: make docs", file=sys.stderr)
        return 1 if wrong else 0
    for name in present.keys() - wanted.keys():
        (FOLDER / name).unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
