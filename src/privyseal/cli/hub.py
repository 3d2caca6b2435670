# SPDX-License-Identifier: Apache-2.0
"""`privyseal hub`."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from privyseal.cli.authority import AsJson, Authority, administration
from privyseal.cli.migrating import migrate
from privyseal.cli.render import emit, say
from privyseal.client.administration import Administration
from privyseal.client.config import load_client_config
from privyseal.client.quorum_file import read_bounded
from privyseal.errors import ConfigError, MalformedInputError
from privyseal.identity.bundle import TrustBundle, load_bundle
from privyseal.identity.keyfile import parse_sealing_key, public_key_text, sealing_key_text
from privyseal.identity.trust import PinnedTrust
from privyseal.tlog.quorum import MAX_POLICY_BYTES

__all__ = ["init", "invite", "migrate", "revoke", "run", "trust"]

Directory = Annotated[Path, Parameter(name="--dir")]


def init(
    *,
    directory: Directory,
    name: str,
    authority: Path,
    host: str = "localhost",
    listen: str = "0.0.0.0:8443",
    as_json: AsJson = False,
) -> None:
    """Make a new hub: CA, log key, trust bundle, configuration; and the authority key, which you keep elsewhere.

    Parameters
    ----------
    directory
        New directory for the hub.
    name
        The hub's name, which is also the log's origin; it cannot be changed later.
    authority
        Where to write the authority key: a USB stick, another machine; not the hub.
    host
        Name or address by which clients and agents reach the hub.
    listen
        HOST:PORT to bind for signing; joining, log and health get the next port.
    as_json
        Print one JSON document.
    """
    from privyseal.hub.config import HubConfig, split_address  # noqa: PLC0415 - needs the extra `hub`
    from privyseal.hub.setup import NewHub, init_hub  # noqa: PLC0415

    address, port = split_address(listen)
    config = HubConfig(
        name=name,
        listen_mtls=f"{address}:{port}",
        listen_web=f"{address}:{port + 1}",
        mtls_url=f"https://{host}:{port}",
        web_url=f"https://{host}:{port + 1}",
    )
    init_hub(NewHub(directory=directory, authority_path=authority, config=config), dt.datetime.now(dt.UTC))
    emit(
        {
            "directory": str(directory),
            "name": name,
            "authority_key": str(authority),
            "web_url": config.web_url,
        },
        (
            f"made hub {name} in {directory}",
            f"authority key: {authority} (whoever has it decides who may join and sign; keep it off the hub)",
            f"next: privyseal hub run --dir {directory}",
            f"then: privyseal hub invite agent NAME --dir {directory} --authority {authority}",
        ),
        as_json=as_json,
    )


def _desk(directory: Path | None, authority: tuple[Path, ...], config: str) -> Administration:
    """The administrator's tools, with the hub's own directory or from a client's desk."""
    if directory is None:
        return administration(authority, config)
    from privyseal.hub.config import HubFiles, load_hub_config  # noqa: PLC0415 - needs the extra `hub`

    web_url = load_hub_config(directory).web_url
    bundle = load_bundle(HubFiles(directory).bundle)
    return Administration(bundle=bundle, web_url=web_url, authority_paths=authority)


def invite(
    role: Literal["client", "agent"],
    name: str,
    /,
    *,
    key: tuple[str, ...] = ("*",),
    directory: Annotated[Path | None, Parameter(name="--dir")] = None,
    authority: Authority = (),
    as_json: AsJson = False,
    config: str = "",
) -> None:
    """Make a join code: for one machine, once, within 15 minutes. The hub must be running.

    Parameters
    ----------
    role
        client or agent.
    name
        Name under which it will stand.
    key
        Key profile that a client may use; may be repeated. Default: all.
    directory
        The hub's directory, if this is the hub's machine.
    authority
        Authority key file (default: authority.key beside the client configuration).
    as_json
        Print one JSON document.
    config
        Client configuration that knows the hub, if this is another machine.
    """
    desk = _desk(directory, authority, config)
    code = desk.invite(role, name, key if role == "client" else ())
    emit({"role": role, "name": name, "code": code}, (code,), as_json=as_json)
    if not as_json:
        where = " --dir DIR" if role == "agent" else ""
        say(f"on {name}, within 15 minutes (the code works once): privyseal {role} join{where}, and paste it")


def revoke(
    role: Literal["client", "agent"],
    name: str,
    /,
    *,
    directory: Annotated[Path | None, Parameter(name="--dir")] = None,
    authority: Authority = (),
    as_json: AsJson = False,
    config: str = "",
) -> None:
    """End the standing of a client or agent at once. The hub must be running.

    Parameters
    ----------
    role
        client or agent.
    name
        Its name.
    directory
        The hub's directory, if this is the hub's machine.
    authority
        Authority key file (default: authority.key beside the client configuration).
    as_json
        Print one JSON document.
    config
        Client configuration that knows the hub, if this is another machine.
    """
    _desk(directory, authority, config).revoke(role, name)
    emit({"revoked": name, "role": role}, (f"{role} {name} has no standing any more",), as_json=as_json)


def trust(
    *,
    witnesses: Path | None = None,
    no_witnesses: Annotated[bool, Parameter(name="--no-witnesses", negative="")] = False,
    agent: tuple[str, ...] = (),
    forget_agent: tuple[str, ...] = (),
    directory: Annotated[Path | None, Parameter(name="--dir")] = None,
    authority: Authority = (),
    as_json: AsJson = False,
    config: str = "",
) -> None:
    """Show the trust bundle; with --witnesses or --agent, change it: agents and clients follow by themselves.

    A key profile whose `witness` in agent.toml is `before-release` or `before-use` waits for the quorum that the policy
    names. A witness on the hub's own host, and the agent that uses the token, never count.

    Parameters
    ----------
    witnesses
        Quorum policy (c2sp.org/tlog-policy). Agents are named by the verifier keys that `privyseal status --json`
        shows, other witnesses also by URL. The hub must be running.
    no_witnesses
        Rely on no witness any more.
    agent
        NAME=x25519:KEY of an agent that PINs shall be sealed to (`token unlock --agent`), as `privyseal agent show` on
        its host prints it. May be repeated.
    forget_agent
        An agent that no PIN shall be sealed to any more. May be repeated.
    directory
        The hub's directory, if this is the hub's machine.
    authority
        Authority key file, may be repeated (default: authority.key beside the client configuration).
    as_json
        Print one JSON document.
    config
        Client configuration that knows the hub, if this is another machine.
    """
    if witnesses is None and not (no_witnesses or agent or forget_agent):
        _print_trust(_pinned(directory, config).bundle, as_json=as_json)
        return
    if witnesses is not None and no_witnesses:
        raise ConfigError("trust.both", "--witnesses and --no-witnesses exclude each other")
    desk = _desk(directory, authority, config)
    policy = "" if no_witnesses else None if witnesses is None else _policy_text(witnesses)
    agents: dict[str, bytes | None] = dict(map(_agent_key, agent))
    bundle = desk.change_trust(witnesses=policy, agents=agents | dict.fromkeys(forget_agent))
    if directory is None:  # the hub keeps its own
        _pinned(directory, config).succeed(bundle.envelope)
    _print_trust(bundle, as_json=as_json)


def _pinned(directory: Path | None, config: str) -> PinnedTrust:
    if directory is None:
        return PinnedTrust.load(load_client_config(config).identity.bundle)
    from privyseal.hub.config import HubFiles  # noqa: PLC0415 - needs the extra `hub`

    return PinnedTrust.load(HubFiles(directory).bundle)


def _agent_key(text: str) -> tuple[str, bytes]:
    name, _, key = text.partition("=")
    return name, parse_sealing_key(key)


def _policy_text(path: Path) -> str:
    try:
        return read_bounded(path, MAX_POLICY_BYTES).decode()
    except UnicodeDecodeError as error:
        raise MalformedInputError("quorum.malformed", f"the quorum policy {path} is not valid UTF-8") from error


def _print_trust(bundle: TrustBundle, *, as_json: bool) -> None:
    statement = bundle.statement
    authorities = [(one.name, public_key_text(one.key)) for one in statement.authorities]
    data = {
        "hub": bundle.hub,
        "serial": statement.serial,
        "sha256": bundle.sha256.hex(),
        "ca": statement.ca,
        "log_key": statement.log_key,
        "authorities": [{"name": name, "key": key} for name, key in authorities],
        "quorum": statement.quorum,
        "witnesses": statement.witnesses,
        "agents": [{"name": one.name, "key": sealing_key_text(one.key)} for one in statement.agents],
    }
    lines = [
        f"hub        {bundle.hub}, trust bundle {statement.serial} ({bundle.sha256.hex()[:16]}…)",
        f"log        {statement.log_key}",
        *(f"authority  {name}: {key}" for name, key in authorities),
        f"           {statement.quorum} of {len(authorities)} must sign what they decide",
    ]
    first, *more = [line for line in statement.witnesses.splitlines() if line.strip()] or ["none"]
    lines += [f"witnesses  {first}", *(f"           {line}" for line in more)]
    lines += [f"agent      {one.name}: {sealing_key_text(one.key)}" for one in statement.agents]
    emit(data, lines, as_json=as_json)


def run(*, directory: Directory, confirmed_size: int | None = None) -> None:
    """Run the hub in the foreground until SIGINT or SIGTERM.

    After a start it only reads until an agent or witness that knows the log has agreed that it is the newest.

    Parameters
    ----------
    directory
        Where `hub init` made it.
    confirmed_size
        How many entries the newest log has, as you know it from elsewhere: for a hub whose agents and witnesses are all
        lost. It goes on record.
    """
    from privyseal.cli.processes import configure_logging, stop_signal  # noqa: PLC0415 - needs the extra `hub`
    from privyseal.hub.wiring import open_hub  # noqa: PLC0415

    async def serve() -> None:
        stop = stop_signal()
        hub = await open_hub(directory)
        try:
            await hub.start(confirmed_size)
            await hub.hub.wait(stop)
        finally:
            await hub.stop()

    configure_logging()
    asyncio.run(serve())
