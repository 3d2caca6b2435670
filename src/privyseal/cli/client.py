# SPDX-License-Identifier: Apache-2.0
"""`privyseal client`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.authority import AsJson, Authority, administration
from privyseal.cli.prompts import read_join_code
from privyseal.cli.render import emit
from privyseal.client.config import client_config_text, find_client_config, load_client_config
from privyseal.client.joining import join as join_hub
from privyseal.identity.keyfile import load_ed25519, parse_public_key, public_key_text, write_public
from privyseal.wire.dsse import key_id

__all__ = ["grant", "join", "show"]


def join(*, directory: Annotated[Path | None, Parameter(name="--dir")] = None, as_json: AsJson = False) -> None:
    """Join a hub: make this machine's keys, get a certificate, pin the hub, write client.toml.

    The join code is asked for on a terminal, and read from standard input otherwise.

    Parameters
    ----------
    directory
        Where keys and client.toml go (default: ~/.config/privyseal).
    as_json
        Print one JSON document.
    """
    home = directory if directory is not None else Path.home() / ".config" / "privyseal"
    member = join_hub(read_join_code(), "client", home / "client")
    path = home / "client.toml"
    text = client_config_text(name=member.name, hubs=member.mtls_urls, web=member.web_url, identity="client")
    write_public(path, text.encode())
    emit(
        {
            "name": member.name,
            "hub": member.bundle.hub,
            "config": str(path),
            "profiles": list(member.profiles),
        },
        (
            f"joined {member.bundle.hub} as client {member.name}",
            f"configuration: {path}",
            f"key profiles: {', '.join(member.profiles)}",
        ),
        as_json=as_json,
    )


def show(*, as_json: AsJson = False, config: str = "") -> None:
    """This client's name, hub, the request key that an administrator needs for `client grant`, and the log's keys.

    Parameters
    ----------
    as_json
        Print one JSON document.
    config
        Client configuration.
    """
    loaded = load_client_config(config)
    public = load_ed25519(loaded.identity.request_key).public_key().public_bytes_raw()
    bundle = loaded.load_bundle()
    data = {
        "name": loaded.name,
        "hub": bundle.hub,
        "config": str(find_client_config(config)),
        "request_key": public_key_text(public),
        "request_key_sha256": key_id(public),
        "log_key": bundle.statement.log_key,
        "log_mldsa_key": bundle.statement.log_mldsa_key,
    }
    emit(data, (f"{name:<18}  {value}" for name, value in data.items()), as_json=as_json)


def grant(
    request_key: str,
    /,
    *,
    key: str,
    format: tuple[str, ...] = ("*",),  # noqa: A002 - the flag's name
    days: int = 365,
    authority: Authority = (),
    as_json: AsJson = False,
    config: str = "",
) -> None:
    """Sign a grant: this request key may use this key profile, also if it is pinned.

    Parameters
    ----------
    request_key
        ed25519:… as `privyseal client show` prints it on that client. Get it from the client itself, not from the hub.
    key
        Name of the key profile.
    format
        Format that is granted; may be repeated. Default: all.
    days
        How long the grant holds.
    authority
        Authority key file (default: authority.key beside the client configuration).
    as_json
        Print one JSON document.
    config
        Client configuration that knows the hub.
    """
    raw = parse_public_key(request_key)
    administration(authority, config).grant(raw, key, format, days)
    emit(
        {"request_key_sha256": key_id(raw), "profile": key, "formats": list(format), "days": days},
        (f"granted key profile {key} to request key {key_id(raw)[:16]}… for {days} days",),
        as_json=as_json,
    )
