# SPDX-License-Identifier: Apache-2.0
"""`privyseal agent`."""

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.prompts import read_join_code
from privyseal.cli.render import emit
from privyseal.client.joining import join as join_hub
from privyseal.identity.bundle import load_bundle
from privyseal.identity.keyfile import sealing_key_text, write_private

__all__ = ["export", "join", "run", "show"]

_CONFIG_TEXT = """\
# A Privyseal agent. Paths are relative to this file.
name = "{name}"

# The hub's two listeners; the agent dials out, it opens no port. Several hubs that share one log: hub = ["…", "…"]
{hub}
web = "{web}"

# A token: any PKCS#11 module by path.
# [[token]]
# name = "etoken"
# kind = "pkcs11"
# module = "/usr/lib/libeToken.so"
# token_label = "ACME"          # or serial = "…", or slot = 0; needed if the module shows several tokens
# pin_file = "pin"              # mode 0600, nothing but the PIN; or pin_credential, pin_keyring, pin_prompt

# A key profile: the name that `privyseal sign --key` uses.
# [[key]]
# profile = "acme-ev"
# token = "etoken"
# id = "01"                     # CKA_ID in hex (privyseal key list shows them), or label = "…"
# chain = "chain.pem"           # leaf first; only if the token does not hold the whole chain
# level = "traced"              # or "pinned": only clients that an authority key has granted
"""


def join(*, directory: Annotated[Path, Parameter(name="--dir")], as_json: AsJson = False) -> None:
    """Join a hub: make this host's keys, get a certificate, pin the hub, write agent.toml to be filled in.

    The join code is asked for on a terminal, and read from standard input otherwise.

    Parameters
    ----------
    directory
        Where keys and agent.toml go.
    as_json
        Print one JSON document.
    """
    from privyseal.agent.config import AgentFiles, hub_setting  # noqa: PLC0415 - needs the extra `agent`
    from privyseal.agent.joining import open_sealing_key, remember_checkpoint  # noqa: PLC0415

    member = join_hub(read_join_code(), "agent", directory)
    asyncio.run(remember_checkpoint(directory, member.bundle, member.checkpoint))
    path = directory / "agent.toml"
    hub = hub_setting(member.mtls_urls)
    write_private(path, _CONFIG_TEXT.format(name=member.name, hub=hub, web=member.web_url).encode())
    key = open_sealing_key(AgentFiles(directory).sealing_key).public_key().public_bytes_raw()
    emit(
        {"name": member.name, "hub": member.bundle.hub, "config": str(path), "sealing_key": sealing_key_text(key)},
        (
            f"joined {member.bundle.hub} as agent {member.name}",
            f"PINs can be sealed to it: privyseal hub trust --agent {member.name}={sealing_key_text(key)}",
            f"next: privyseal token add --dir {directory} (or fill in {path} by hand)",
            f"then: privyseal agent run --dir {directory}",
        ),
        as_json=as_json,
    )


def run(*, directory: Annotated[Path, Parameter(name="--dir")]) -> None:
    """Run the agent in the foreground until SIGINT or SIGTERM.

    Parameters
    ----------
    directory
        Where `agent join` put it.
    """
    from privyseal.agent.wiring import open_agent  # noqa: PLC0415 - needs the extra `agent`
    from privyseal.cli.processes import configure_logging, stop_signal  # noqa: PLC0415

    async def serve() -> None:
        stop = stop_signal()
        agent = await open_agent(directory)
        try:
            await agent.start()
            await agent.wait(stop)
        finally:
            await agent.stop()

    configure_logging()
    asyncio.run(serve())


def show(*, directory: Annotated[Path, Parameter(name="--dir")], as_json: AsJson = False) -> None:
    """This agent's name, its hub and where that is reached, and the key that PINs from a desk are sealed to.

    Parameters
    ----------
    directory
        Where `agent join` put it.
    as_json
        Print one JSON document.
    """
    from privyseal.agent.config import AgentFiles, load_agent_config  # noqa: PLC0415 - needs the extra `agent`
    from privyseal.agent.joining import open_sealing_key  # noqa: PLC0415

    config, files = load_agent_config(directory), AgentFiles(directory)
    hub = load_bundle(files.bundle).hub
    key = sealing_key_text(open_sealing_key(files.sealing_key).public_key().public_bytes_raw())
    emit(
        {"name": config.name, "hub": hub, "urls": config.hubs, "sealing_key": key},
        (
            f"agent        {config.name}",
            f"hub          {hub}",
            *(f"reached at   {url}" for url in config.hubs),
            f"sealing key  {key}",
        ),
        as_json=as_json,
    )


def export(file: Path, /, *, directory: Annotated[Path, Parameter(name="--dir")], as_json: AsJson = False) -> None:
    """Write out what this agent signed under, for `privyseal log verify --agent`. The agent may be running.

    Parameters
    ----------
    file
        Where to; replaced if it is there. Holds intents, checkpoints and hashes of signatures, and no secret.
    directory
        Where `agent join` put the agent.
    as_json
        Print one JSON document.
    """
    from privyseal.agent.record import export_record  # noqa: PLC0415 - needs the extra `agent`

    head = export_record(directory, file)
    emit(
        {"file": str(file), "agent": head.agent, "origin": head.origin, "operations": head.operations},
        (f"exported  {head.operations} operations of agent {head.agent} under log {head.origin}, to {file}",),
        as_json=as_json,
    )
