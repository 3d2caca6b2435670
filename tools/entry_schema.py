# SPDX-License-Identifier: Apache-2.0
"""Writes docs/log-entries.schema.json and the table of entry types in docs/log.md, from the types and their docstrings.

Every field stands in every entry: the canonical form leaves out no default. `--check` writes nothing, and fails if
something is not as it would be written.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from privyseal.tlog.entry import Entry

__all__ = ["page", "schema", "schema_text"]

ROOT: Final = Path(__file__).parents[1]
SCHEMA: Final = ROOT / "docs" / "log-entries.schema.json"
PAGE: Final = ROOT / "docs" / "log.md"
_MARKS: Final = ("<!-- entries: written by tools/entry_schema.py, `make docs` renews it -->", "<!-- end of entries -->")
_LARGEST: Final = 2**53 - 1


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a log entry."""
    (whole,), definitions = msgspec.json.schema_components([Entry], ref_template="#/$defs/{name}")
    inherited = {kind.__name__: _inherited(kind) for kind in get_args(Entry)}
    for name_of_type, definition in definitions.items():
        says = definition.pop("description")
        definition["description"] = " ".join(says.partition("\n\n")[0].split())
        told = inherited.get(name_of_type, {}) | _fields(says)
        for name, field in definition["properties"].items():
            field.pop("default", None)
            if field.get("type") == "integer":
                field |= {"minimum": -_LARGEST, "maximum": _LARGEST}
            if name in told:
                field["description"] = told[name]
        if "v" in definition["properties"]:
            definition["properties"]["v"] |= {"const": 1}
        definition["required"] = sorted(definition["properties"])
    del whole["discriminator"]  # OpenAPI's word, not JSON Schema's
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Entry of a Privyseal log",
        "description": "At most 65,535 bytes of RFC 8785 canonical JSON; this schema cannot say that.",
        **whole,
        "$defs": dict(sorted(definitions.items())),
    }


def _inherited(kind: type[msgspec.Struct]) -> dict[str, str]:
    """What the types that it is made from say of their fields."""
    return {name: text for base in reversed(kind.__mro__) for name, text in _fields(base.__doc__).items()}


def _fields(docstring: str | None) -> dict[str, str]:
    """What the Attributes section says of each field, or of several at once: `a, b: …`."""
    section = (docstring or "").partition("Attributes:\n")[2]
    found = re.findall(r"^ {8}(\w+(?:, \w+)*): (.+(?:\n {12}.+)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for names, text in found for name in names.split(", ")}


def schema_text() -> str:
    """The content of docs/log-entries.schema.json."""
    return json.dumps(schema(), indent=2) + "\n"


def page(present: str) -> str:
    """docs/log.md with its entry types renewed."""
    begin, end = _MARKS
    before, _, rest = present.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{_sections()}\n{end}{after}"


def _sections() -> str:
    definitions, written = schema()["$defs"], []
    for kind in get_args(Entry):
        definition = definitions[kind.__name__]
        written.append(f"### {kind.__struct_config__.tag}\n\n{definition['description']}\n\n| field | |\n|---|---|\n")
        written += [
            f"| `{name}` | {_cell(field, definitions)} |\n"
            for name, field in definition["properties"].items()
            if name not in {"t", "ts", "v"}
        ]
        written.append("\n")
    return "".join(written).rstrip("\n") + "\n"


def _cell(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    inner = definitions.get(field.get("$ref", "").rpartition("/")[2], {"properties": {}})
    parts = (f"`{part}`: {one['description']}" for part, one in inner["properties"].items())
    return " ".join((field["description"], *parts)).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write both, or with --check compare them."""
    wanted = {SCHEMA: schema_text(), PAGE: page(PAGE.read_text("utf-8"))}
    wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in arguments:
        for path in wrong:
            print(f"{path.relative_to(ROOT)} is not up to date; run: make docs", file=sys.stderr)
        return 1 if wrong else 0
    for path in wrong:
        path.write_text(wanted[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
