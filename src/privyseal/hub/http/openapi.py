# SPDX-License-Identifier: Apache-2.0
"""OpenAPI 3.1 out of the route table."""

import re
from typing import Any

import msgspec

import privyseal
from privyseal.hub.http.routes import Listener, Route
from privyseal.wire.api import Problem

__all__ = ["openapi_document"]


def openapi_document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """Describe every route: listener, permission, what it logs, its bodies."""
    kinds = [kind for route in routes for kind in (route.body, route.answer) if kind is not None]
    template = "#/components/schemas/{name}"
    _, components = msgspec.json.schema_components([*kinds, Problem], ref_template=template)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(re.sub(r":[^}]+}", "}", route.path), {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Privyseal hub", "version": privyseal.__version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _content(kind: type[Any] | None) -> dict[str, Any]:
    if kind is None:
        return {}
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}}


def _operation(route: Route) -> dict[str, Any]:
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    names = re.findall(r"{(\w+)", route.path)
    operation: dict[str, Any] = {
        "summary": route.summary,
        "x-privyseal-listener": route.listener.value,
        "x-privyseal-proxied": route.is_at(Listener.PROXIED),
        "x-privyseal-permission": route.permission.value,
        "x-privyseal-audit": route.audit,
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names],
        "responses": {
            "200": {"description": "the answer", **_content(route.answer)},
            "default": {"description": "refused", "content": {"application/problem+json": problem}},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, **_content(route.body)}
    return operation
