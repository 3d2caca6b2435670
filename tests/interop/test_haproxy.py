# SPDX-License-Identifier: Apache-2.0
"""A real HAProxy between clients and hub, with the configuration that deploy/ gives: TLS through it, or ended by it."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from haproxy import CONFIG, HaProxy, running_haproxy
from installation import Site, add_to_agent, copy_of_program, free_port, make_site, software_token
from privyseal.hub.config import HubConfig, load_hub_config
from privyseal.identity.bundle import load_bundle
from programs import Outcome, Running, privyseal, refused, succeeded, unchanged, until

pytestmark = pytest.mark.interop

#: Changes a body on its way, in place: HAProxy itself has no rule for that.
LUA = """
local tamper = {id = "tamper", flags = filter.FLT_CFG_FL_HTX}
tamper.__index = tamper
function tamper:new() return setmetatable({}, tamper) end
function tamper:start_analyze(txn, channel)
    if not channel:is_resp() then filter.register_data_filter(self, channel) end
end
function tamper:http_payload(txn, message)
    local body = message:body()
    if body then
        local at = string.find(body, '"priority":"normal"', 1, true)
        if at then message:set(body:gsub('"priority":"normal"', '"priority":"urgent"'), 0, #body) end
    end
end
core.register_filter("tamper", tamper, function(filter, arguments) return filter end)
"""
MIDDLE = re.compile(r"SEEN (\S+) (\S+) \{(.*)\|(.*)\|(.*)\}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A hub with all its listeners, an agent and a client."""
    site = make_site(tmp_path_factory.mktemp("haproxy") / "lab")
    try:
        add_to_agent(site, software_token(site.agent_directory))
        site.running["hub"].stop()
        path = site.hub_directory / "hub.toml"
        path.write_text(f'listen_proxied = "127.0.0.1:{free_port()}"\n' + path.read_text())
        site.start_hub()
        site.start_agent()
        site.until_online("demo")
        site.save_roots("demo")
        yield site
        site.stop()
    finally:
        site.end()


def hubs(lab: Site) -> tuple[HubConfig, ...]:
    """Those that stand behind the balancer."""
    return (load_hub_config(lab.hub_directory),)


@contextmanager
def balanced(lab: Site, directory: Path, *, rules: str = "", head: str = "") -> Iterator[HaProxy]:
    ca = load_bundle(lab.client().identity.bundle).statement.ca
    with running_haproxy(directory, hubs(lab), ca, rules=rules, head=head) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def haproxy(lab: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HaProxy]:
    with balanced(lab, tmp_path_factory.mktemp("balanced") / "haproxy") as proxy:
        yield proxy


def through(lab: Site, proxy: HaProxy, *, proxied: bool) -> Path:
    """The client's configuration, with the balancer's addresses in the place of the hub's."""
    text = lab.config.read_text().replace(lab.client().hub_urls[0], proxy.proxied if proxied else proxy.mtls)
    text = text.replace(lab.client().web_urls[0], proxy.web)
    if proxied:
        text = f'proxied = true\nhub_ca = "{proxy.ca}"\n' + text
    place = lab.config.with_name("proxied.toml" if proxied else "balanced.toml")
    place.write_text(text)
    return place


@pytest.fixture(params=[False, True], ids=["tcp", "http"])
def config(lab: Site, haproxy: HaProxy, request: pytest.FixtureRequest) -> Path:
    """A client behind the balancer, in both its modes."""
    return through(lab, haproxy, proxied=request.param)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return copy_of_program(tmp_path)


def run(config: Path, *arguments: str | Path) -> Outcome:
    return privyseal(*arguments, config=config)


def test_sign_verify_and_read_the_log(lab: Site, config: Path, app: Path) -> None:
    succeeded(run(config, "sign", "--key", "demo", app))

    succeeded(run(config, "verify", "--trust", lab.roots, app))
    succeeded(run(config, "log", "verify"))
    assert succeeded(run(config, "status", "--json")).document["client"] == "client"


def test_a_batch(config: Path, app: Path) -> None:
    for number in range(40):
        (app.parent / f"{number}.exe").write_bytes(app.read_bytes() + bytes([number]) * 8)

    succeeded(run(config, "sign", "--key", "demo", app.parent))


def test_events_come_as_they_happen(lab: Site, config: Path, app: Path) -> None:
    """Neither held back nor cut: each is there before the next one happens."""
    listener = Running("status", "--events", "--json", "--config", config, said=app.parent / "events")
    try:
        for number in range(2):
            app.write_bytes(app.read_bytes() + b"12345678")
            until(lambda number=number: _heard(lab, listener, config, app, number), "the events")  # type: ignore[misc]
    finally:
        listener.end()


def _heard(lab: Site, listener: Running, config: Path, app: Path, number: int) -> bool:
    """Signs until one is heard of: the listener tells nobody when it has begun to listen."""
    copy = app.with_name(f"{number}-{len(list(app.parent.iterdir()))}.exe")
    shutil.copyfile(app, copy)
    before = listener.out.read_text().count('"signed"')
    succeeded(run(config, "sign", "--key", "demo", copy))
    return listener.out.read_text().count('"signed"') > before


def test_a_long_poll_is_waited_for(lab: Site, config: Path, app: Path) -> None:
    """The agent comes back while the client waits for its signature."""
    lab.running["agent"].stop()
    lab.until_status(lambda status: not status.agents[0].linked)
    client = Running("sign", "--key", "demo", "--config", config, app, said=app.parent / "client")
    until(lambda: "agent.offline" in client.log, "the client's word that it waits")
    lab.start_agent()

    assert client.process.wait(timeout=60) == 0, client.log
    succeeded(run(config, "verify", "--trust", lab.roots, app))


def test_no_hub_behind_it(lab: Site, tmp_path: Path, app: Path) -> None:
    """The proxy's 503 is "not now", and says so; TLS through it ends before an answer."""
    (config,) = hubs(lab)
    gone = HubConfig(
        name=config.name,
        listen_mtls="127.0.0.1:1",
        listen_web="127.0.0.1:1",
        listen_proxied="127.0.0.1:1",
        mtls_url=config.mtls_url,
        web_url=config.web_url,
    )
    ca = load_bundle(lab.client().identity.bundle).statement.ca
    with running_haproxy(tmp_path / "haproxy", (gone,), ca) as proxy, unchanged(app):
        for proxied, code in ((True, "hub.gateway"), (False, "hub.unreachable")):
            config_path = through(lab, proxy, proxied=proxied)
            refused(run(config_path, "sign", "--key", "demo", "--timeout", "1", "--json", app), 7, code)


def test_doctor_says_what_the_proxy_sees(lab: Site, haproxy: HaProxy) -> None:
    done = succeeded(run(through(lab, haproxy, proxied=True), "doctor"))

    assert "the proxy sees names, digests and claims, and can sign nothing" in done.out


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("http-request set-path /v1/status if { path_beg /v1/profiles }", "proof.signature"),
        ("http-request set-query wait=0 if { method POST }", "proof.signature"),
        ("http-request set-method GET if { method POST }", "http.method"),
        ("http-request del-header Signature", "proof.missing"),
        ("http-request set-header X-Client-Cert client\n    http-request del-header Signature", "proof.missing"),
        ("http-request del-header Content-Digest", "proof.malformed"),
        ("http-request add-header Signature privyseal=:AAAA:", "proof.malformed"),
        (r"http-request replace-header Signature-Input (.*)created=1(.*) \1created=2\2", "proof.malformed"),
        ("filter lua.tamper", "proof.digest"),
    ],
)
def test_a_proxy_that_changes_what_goes_through_it(lab: Site, tmp_path: Path, app: Path, rule: str, code: str) -> None:
    (tmp_path / "tamper.lua").write_text(LUA)
    entries = succeeded(lab.run("log", "verify", "--json")).document["size"]
    head = f"    lua-load {tmp_path}/tamper.lua\n"
    status = 1 if code == "http.method" else 6
    with balanced(lab, tmp_path / "haproxy", rules=f"    {rule}\n", head=head) as proxy, unchanged(app):
        refused(run(through(lab, proxy, proxied=True), "sign", "--key", "demo", "--json", app), status, code)

    assert succeeded(lab.run("log", "verify", "--json")).document["size"] == entries


def test_a_proxy_that_repeats_what_it_has_seen(lab: Site, tmp_path: Path, app: Path) -> None:
    """It writes down what goes through it, signatures included, and sends it once more."""
    names = ("Signature-Input", "Signature", "Content-Digest")
    rules = "".join(f"    http-request capture req.hdr({name}) len 400\n" for name in names)
    rules += '    log-format "SEEN %HM %HU {%[capture.req.hdr(0)]|%[capture.req.hdr(1)]|%[capture.req.hdr(2)]}"\n'
    with balanced(lab, tmp_path / "haproxy", rules=rules) as proxy:
        succeeded(run(through(lab, proxy, proxied=True), "sign", "--key", "demo", app))
        seen = until(lambda: MIDDLE.findall(proxy.log.read_text()), "what the proxy wrote down")
        trusting = urllib3.PoolManager(ca_certs=str(proxy.ca))
        replayed = []
        for method, target, *values in seen:
            fields = {name: value for name, value in zip(names, values, strict=True) if value not in ("", "-")}
            answer = trusting.request(method, proxy.proxied + target, headers=fields, body=None, retries=False)
            replayed.append((method, answer.status, json.loads(answer.data)["code"]))

    assert {method for method, *_ in replayed} >= {"GET", "POST"}
    assert {(status, code) for _, status, code in replayed} == {(401, "proof.replayed")}


def test_another_certificate_than_the_proxys(lab: Site, haproxy: HaProxy, tmp_path: Path, app: Path) -> None:
    config = through(lab, haproxy, proxied=True)
    text = config.read_text().replace(f'hub_ca = "{haproxy.ca}"', f'hub_ca = "{lab.roots}"')
    config.with_name("other.toml").write_text(text)

    with unchanged(app):
        refused(run(config.with_name("other.toml"), "sign", "--key", "demo", app), 6, "hub.proxy_certificate")


def test_the_shipped_configuration_is_the_one_that_is_tried() -> None:
    assert CONFIG.read_text().count("server hub-2 ") == 3
