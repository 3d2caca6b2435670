# SPDX-License-Identifier: Apache-2.0
"""`signtool timestamp`."""

from pathlib import Path

from privyseal.cli.signtool.arguments import Arguments
from privyseal.cli.signtool.certificates import timestamper_for
from privyseal.cli.signtool.talk import Talk, each_file
from privyseal.cli.signtool.values import number
from privyseal.client.config import optional_client_config
from privyseal.client.timestamp_file import FileTimestamper
from privyseal.errors import ConfigError

__all__ = ["timestamp"]


def timestamp(arguments: Arguments, talk: Talk) -> int:
    """Timestamp one signature of each file, the first one if /tp names no other; one that is there is replaced."""
    timestamper = timestamper_for(arguments, optional_client_config(), talk)
    if timestamper is None:
        raise ConfigError("timestamp.none", "no TSA is named", hint="name one: /tr URL /td SHA256")
    position = number(arguments, "tp") if arguments.has("tp") else 0
    subject = FileTimestamper(timestamper, replace=True, position=position)

    def act(path: Path) -> None:
        done = subject.add(path)
        talk.done(f"Successfully timestamped: {path}")
        talk.detail(*(f"    Timestamp: {moment.isoformat()}" for moment in done.times))

    each_file(arguments, talk, act)
    return talk.end("timestamped")
