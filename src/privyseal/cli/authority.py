# SPDX-License-Identifier: Apache-2.0
"""What the commands that need an authority key share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.client.administration import Administration
from privyseal.client.config import load_client_config
from privyseal.errors import ConfigError

__all__ = ["AsJson", "Authority", "administration"]

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
Authority = Annotated[tuple[Path, ...], Parameter(name="--authority")]


def administration(authority: tuple[Path, ...], config: str) -> Administration:
    """An administrator's tools: the hub of a client configuration, with these authority keys.

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
    return Administration(bundle=loaded.load_bundle(), web_url=loaded.web_url, authority_paths=paths)
