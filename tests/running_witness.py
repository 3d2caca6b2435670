# SPDX-License-Identifier: Apache-2.0
"""A witness as a program of its own, made the way an operator makes one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from privyseal.tlog.note import VerifierKey
from programs import Running, privyseal, succeeded

__all__ = ["RunningWitness", "make_witness", "running_witness"]


@dataclass(kw_only=True)
class RunningWitness:
    """A witness's directory, its keys (Ed25519, ML-DSA-44), and where it listens."""

    directory: Path
    vkeys: tuple[str, ...]
    running: Running | None = None
    url: str = ""

    @property
    def vkey(self) -> str:
        """Its first key."""
        return self.vkeys[0]

    def know(self, *logs: VerifierKey) -> None:
        """Put logs into witness.toml."""
        tables = (f'\n[[log]]\norigin = "{log.name}"\nkey = "{log.vkey}"\n' for log in logs)
        with (self.directory / "witness.toml").open("a") as config:
            config.writelines(tables)

    def start(self) -> None:
        said = self.directory.with_name(self.directory.name + "-said")
        self.running = Running("witness", "run", "--dir", self.directory, "--listen", "127.0.0.1:0", said=said)
        self.url = f"http://127.0.0.1:{self.running.until_event(event='witness ready')['port']}"


def make_witness(directory: Path, name: str = "witness.example/w1") -> RunningWitness:
    """`witness init`."""
    made = succeeded(privyseal("witness", "init", "--dir", directory, "--name", name, "--json"))
    return RunningWitness(directory=directory, vkeys=tuple(made.document["keys"]))


@contextmanager
def running_witness(directory: Path, *logs: VerifierKey, name: str = "witness.example/w1") -> Iterator[RunningWitness]:
    """A witness that knows these logs; at the end it is asked to stop, and must stop well."""
    witness = make_witness(directory, name)
    witness.know(*logs)
    witness.start()
    assert witness.running is not None
    try:
        yield witness
        witness.running.stop()
    finally:
        witness.running.end()
