# SPDX-License-Identifier: Apache-2.0
"""What the commands that need an authority key share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.client.administration import Administration
from privyseal.client.config import load_client_config
from privyseal.errors import ConfigError
from privyseal.identity.bundle import load_bundle

__all__ = ["AsJson", "Authority", "administration"]

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
Authority = Annotated[tuple[Path, ...], Parameter(name="--authority")]


def administration(authority: tuple[Path, ...], config: str, bundle: Path | None = None) -> Administration:
    """An administrator's tools: the hub of a client configuration, with these authority keys.

    Args:
        authority: Files.
        config: The client configuration, if it is not the usual one.
        bundle: The trust bundle to go by, if it is not the one that the client pinned.

    Raises:
        ConfigError: `authority.missing` if no key was named and none lies beside the configuration.
    """
    loaded = load_client_config(config)
    beside = loaded.path.resolve().parent / "authority.key"
    paths = authority or ((beside,) if beside.is_file() else ())
    if not paths:
        raise ConfigError(
            "authority.missing",
            "this needs the authority key that `privyseal hub init` made",
            hint="name its file with --authority",
        )
    pinned = loaded.load_bundle() if bundle is None else load_bundle(bundle)
    return Administration(bundle=pinned, web_url=loaded.web_urls[0], authority_paths=paths)
