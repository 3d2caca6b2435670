# SPDX-License-Identifier: Apache-2.0
"""docs/log.md and the published schema say of each entry what the types say, and every field is explained."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest

from privyseal.tlog.entry import Entry

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/log.md").read_text("utf-8")
PUBLISHED: dict[str, Any] = json.loads((ROOT / "docs/log-entries.schema.json").read_text("utf-8"))
KINDS = {str(kind.__struct_config__.tag): kind for kind in get_args(Entry)}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("entry_schema", ROOT / "tools" / "entry_schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["entry_schema"] = module
    spec.loader.exec_module(module)
    return module


def test_schema_and_page_are_up_to_date(generator: ModuleType) -> None:
    assert (ROOT / "docs/log-entries.schema.json").read_text("utf-8") == generator.schema_text(), "run `make docs`"
    assert generator.page(PAGE) == PAGE, "run `make docs`"
    assert generator.main(["--check"]) == 0


@pytest.mark.parametrize("name", KINDS)
def test_every_field_is_required_and_explained(name: str) -> None:
    definition = PUBLISHED["$defs"][KINDS[name].__name__]
    fields = {field.encode_name for field in msgspec.structs.fields(KINDS[name])} | {"t"}

    assert set(definition["properties"]) == set(definition["required"]) == fields
    assert definition["additionalProperties"] is False
    assert definition["properties"]["t"]["enum"] == [name]
    assert [field for field in fields - {"t"} if not definition["properties"][field].get("description")] == []
    section = PAGE.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    assert [field for field in fields - {"t", "ts", "v"} if f"\n| `{field}` | " not in section] == []
