# SPDX-License-Identifier: Apache-2.0
"""One job can be followed by its id through the logs of hub and agent, from the queue to its end."""

from typing import Any

from api_client import api_of, ask
from installation import Site
from lab.fault_shim import FaultyToken
from privyseal.wire.job_names import short_request
from programs import Running, until


def lines(running: Running, request: str) -> list[dict[str, Any]]:
    return [event for event in running.events if event.get("request") == short_request(request)]


def said(running: Running, request: str) -> list[tuple[str, str]]:
    return [(event["event"], event["item"]) for event in lines(running, request)]


def test_a_batch_is_followed_from_the_queue_to_its_signatures(site: Site) -> None:
    api = api_of(site.client())
    asked = ask(site.client(), "release", items=3)

    request = api("POST", "/v1/signatures?wait=30&enough=3", asked.body).document["id"]

    hub, agent = site.running["hub"], site.running["agent"]
    until(lambda: {"jobs signed"} <= {event for event, _ in said(hub, request)}, "the end in the hub's log")
    assert said(hub, request)[:2] == [("jobs queued", "0-2"), ("jobs under way", "0-2")]
    assert {event for event, _ in said(hub, request)[2:]} == {"jobs signed"}
    begun, *signed = said(agent, request)
    assert begun == ("job journalled", "0-2")
    assert {event for event, _ in signed} == {"signed"}
    assert {one["profile"] for running in (hub, agent) for one in lines(running, request)} == {"release"}
    assert "client" not in {key for one in lines(hub, request) for key in one}


def test_a_job_that_the_token_refuses_is_found_by_its_id(site: Site, site_token: FaultyToken) -> None:
    asked = ask(site.client(), "release")
    site_token.break_with("C_Sign rv 5")
    try:
        reply = api_of(site.client())("POST", "/v1/signatures?wait=30", asked.body)
    finally:
        site_token.heal()

    (item,) = reply.document["items"]
    assert item["state"] == "failed", item
    hub, agent = site.running["hub"], site.running["agent"]
    ended = until(lambda: [one for one in lines(hub, reply.document["id"]) if one["event"] == "jobs failed"], "the end")
    assert (ended[0]["code"], ended[0]["item"]) == (item["code"], "0")
    refused = [one for one in lines(agent, reply.document["id"]) if one["event"] == "not signed"]
    assert refused[-1]["code"] == item["code"]
