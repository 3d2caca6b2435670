# SPDX-License-Identifier: Apache-2.0
"""The route table: each route says where it answers, who may call it and what it leaves in the log."""

import re

import msgspec
import pytest

from privyseal.errors import UnavailableError
from privyseal.hub.http.openapi import openapi_document
from privyseal.hub.http.routes import Listener, Permission, _problem
from privyseal.hub.wiring import all_routes
from privyseal.wire.api import Problem, error_from_problem


def test_no_route_stands_twice() -> None:
    places = [(route.method, route.path) for route in all_routes()]

    assert len(places) == len(set(places))


def test_every_route_says_what_it_does_and_what_it_leaves() -> None:
    assert [route.path for route in all_routes() if not route.summary or not route.audit] == []


def test_the_mtls_listener_asks_for_a_member_and_the_web_listener_knows_none() -> None:
    """A permission that its listener cannot check would be none."""
    for route in all_routes():
        assert (route.listener is Listener.WEB) == (route.permission is Permission.ANYONE), route.path


def test_what_changes_something_leaves_an_entry() -> None:
    assert [route.path for route in all_routes() if route.method != "GET" and route.audit == "none"] == []


def test_only_what_a_client_may_ask_is_behind_a_proxy() -> None:
    """Agents' link and the web listener's routes are not."""
    proxied = {route.path for route in all_routes() if route.is_at(Listener.PROXIED)}

    assert {"/v1/signatures", "/v1/signatures/{id}", "/v1/profiles/{name}", "/v1/status", "/v1/events"} <= proxied
    for route in all_routes():
        assert (route.path in proxied) == (
            route.listener is Listener.MTLS and route.permission in {Permission.CLIENT, Permission.MEMBER}
        ), route.path


@pytest.mark.parametrize(("seconds", "field"), [(None, None), (0.0, "0"), (2.3, "3"), (60.0, "60")])
def test_patience_that_the_hub_asks_for_stands_in_the_head_too(seconds: float | None, field: str | None) -> None:
    error = UnavailableError("queue.full", "10000 jobs wait", retry_after_seconds=seconds)

    response = _problem(error)

    assert response.headers.get("Retry-After") == field
    assert isinstance(response.body, bytes)
    found = error_from_problem(msgspec.json.decode(response.body, type=Problem))
    assert isinstance(found, UnavailableError)
    assert (found.code, found.retry_after_seconds) == (error.code, seconds)


def test_openapi_is_complete() -> None:
    document = openapi_document(all_routes())

    assert document["openapi"].startswith("3.1.")
    for route in all_routes():
        path = re.sub(r":[^}]+}", "}", route.path)
        operation = document["paths"][path][route.method.lower()]
        assert operation["summary"] == route.summary
        assert {one["name"] for one in operation["parameters"]} == set(re.findall(r"{(\w+)}", path))
        assert ("requestBody" in operation) == (route.body is not None)
        for kind in (route.body, route.answer):
            assert kind is None or kind.__name__ in document["components"]["schemas"]
