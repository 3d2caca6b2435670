# SPDX-License-Identifier: Apache-2.0
"""A token's host for tests of its set-up: a SoftHSM2 token, an agent's directory, and a CA that we did not write."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from programs import Outcome, privyseal, succeeded
from softhsm import RSA_ID, SoftHsm, fresh_softhsm, need

__all__ = ["HEAD", "SUBJECT", "Host", "issue_by_openssl", "make_host", "openssl", "unwritten"]

HEAD = '# kept\nname = "lab"\nhub = "https://h:1"\nweb = "https://h:2"\n'
SUBJECT = "CN=ACME\\, Ltd,O=ACME,C=DE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A token's host: a SoftHSM2 token, and an agent's directory."""

    hsm: SoftHsm

    @property
    def agent(self) -> Path:
        return self.hsm.directory / "agent"

    @property
    def config(self) -> Path:
        return self.agent / "agent.toml"

    def run(self, *arguments: str | Path) -> Outcome:
        return privyseal(*arguments, cwd=self.hsm.directory, more=self.hsm.environment)

    def add(self, *arguments: str | Path) -> Outcome:
        chosen = ("--dir", self.agent, "--module", self.hsm.module, "--pin-file", self.hsm.pin_file)
        return self.run("token", "add", *chosen, *arguments)

    def key(self, verb: str, *arguments: str | Path) -> Outcome:
        return self.run("key", verb, *arguments, "--dir", self.agent)

    def request(self, key_id: bytes) -> Path:
        path = self.hsm.directory / f"{key_id.hex()}.csr"
        succeeded(self.key("csr", "--id", key_id.hex(), "--subject", SUBJECT, "-o", path))
        return path


def make_host(directory: Path, *, add: bool = False) -> Host:
    """A host whose agent.toml names no token yet, or the one with its key RSA_ID."""
    host = Host(hsm=fresh_softhsm(directory))
    host.agent.mkdir()
    host.config.write_text(HEAD)
    if add:
        succeeded(host.add("--key-id", RSA_ID.hex(), "--yes"))
    return host


@contextmanager
def unwritten(host: Host) -> Iterator[None]:
    """What the block does leaves agent.toml as it was, and no PIN file beside it."""
    before = host.config.read_bytes()
    yield
    assert host.config.read_bytes() == before
    assert not [path for path in host.agent.iterdir() if path.suffix == ".pin" or path.name.startswith(".")]


def openssl(*arguments: str | Path) -> str:
    need(programs=("openssl",))
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).decode()


def issue_by_openssl(directory: Path, request: Path, *, days: int = 400, purpose: str = "codeSigning") -> list[Path]:
    """A root, an intermediate and a leaf for a request, by a CA that we did not write."""
    extensions = directory / "extensions"
    ca = "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign\n"
    extensions.write_text(
        f"[ca]\n{ca}[leaf]\nbasicConstraints=CA:false\nkeyUsage=critical,digitalSignature\nextendedKeyUsage={purpose}\n"
    )
    root, middle, leaf = (directory / name for name in ("root.pem", "middle.pem", "leaf.pem"))
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", f"{root}.key", "-out", root, "-days", "4000", "-subj", "/CN=Root CA")
    middle_request = directory / "middle.csr"
    openssl("req", "-new", *new_key, "-keyout", f"{middle}.key", "-out", middle_request, "-subj", "/CN=Middle CA")
    for one, certificate, issuer, section in ((middle_request, middle, root, "ca"), (request, leaf, middle, "leaf")):
        openssl(
            "x509", "-req", "-in", one, "-CA", issuer, "-CAkey", f"{issuer}.key", "-CAcreateserial",
            "-days", str(days), "-extfile", extensions, "-extensions", section, "-out", certificate,
        )  # fmt: skip
    return [leaf, middle, root]
