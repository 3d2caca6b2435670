# SPDX-License-Identifier: Apache-2.0
"""The inclusion and consistency cases of transparency-dev/merkle (Apache-2.0), most of them negative.

Size 0: three of the consistency cases demand an error because size 0 proves nothing, where C2SP tlog-witness
demands that an empty proof from the empty tree is accepted. All three are refused here too: their roots are
not those of an empty tree, or no hashes at all; what is accepted from size 0 stands in the tree's unit tests.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privyseal.errors import VerificationError
from privyseal.tlog.proof import verify_consistency, verify_inclusion


def cases(vectors: Path, kind: str) -> list[tuple[str, dict[str, Any]]]:
    folder = vectors / "merkle" / "testdata" / kind
    return [(str(path.relative_to(folder)), json.loads(path.read_text())) for path in sorted(folder.rglob("*.json"))]


def decoded(value: str | None) -> bytes:
    return base64.b64decode(value or "")


def proof_of(case: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(decoded(value) for value in case["proof"] or ())


def inclusion_problem(case: dict[str, Any]) -> str:
    try:
        verify_inclusion(
            leaf=decoded(case["leafHash"]),
            index=case["leafIdx"],
            size=case["treeSize"],
            proof=proof_of(case),
            root=decoded(case["root"]),
        )
    except VerificationError as error:
        return error.code
    return ""


def consistency_problem(case: dict[str, Any]) -> str:
    try:
        verify_consistency(
            old_size=case["size1"],
            new_size=case["size2"],
            old_root=decoded(case["root1"]),
            new_root=decoded(case["root2"]),
            proof=proof_of(case),
        )
    except VerificationError as error:
        return error.code
    return ""


@pytest.mark.parametrize(("kind", "problem"), [("inclusion", inclusion_problem), ("consistency", consistency_problem)])
def test_all_cases(vectors: Path, kind: str, problem: Callable[[dict[str, Any]], str]) -> None:
    found = cases(vectors, kind)
    wanted = {name: f"proof.{kind}" if case["wantErr"] else "" for name, case in found}

    assert {name: problem(case) for name, case in found} == wanted
    assert len(found) == 98
