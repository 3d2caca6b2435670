# SPDX-License-Identifier: Apache-2.0
"""docs/first-token.md is a session at a shell: its commands run as they stand, on a terminal, in an empty directory.

What is on the PATH is the installed `privyseal` and the system's programs; the person at the terminal is played.
"""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from installation import copy_of_program, free_port
from interop_tools import run_program
from pages import ROOT, Block, blocks
from programs import DEADLINE_SECONDS, until
from softhsm import need
from terminal import Answer, run_on_terminal
from token_setup import issue_by_openssl

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "first-token.md"

#: Sections for other machines: root's commands, and tokens that are not here.
NOT_HERE = ("Install", "SafeNet eToken", "YubiKey")

#: What a reader replaces, and the ports, which may be taken.
REPLACED = {"--host signing.example.com": "--host localhost --listen 127.0.0.1:{port}"}

PIN = "canary ^$`731946"

#: The person at the terminal: question, and what is typed.
ANSWERS: dict[str, Answer] = {
    "Join code: ": lambda shown: re.findall(r"pvjoin1-[\w-]+", shown)[-1],
    "Please enter SO PIN": "87654321",
    "Please reenter SO PIN": "87654321",
    "Please enter user PIN": PIN,
    "Please reenter user PIN": PIN,
    "PIN of token trial: ": PIN,
    "Append these lines? [y/N] ": "y",
}

#: A block that is one such line stays in the foreground, in a shell of its own; this is in its log once it works.
FOREGROUND = {"privyseal hub run --dir hub": '"hub ready"', "privyseal agent run --dir agent": '"linked"'}


@dataclass(kw_only=True)
class Session:
    """A person with a shell in a directory, and the page."""

    directory: Path
    variables: dict[str, str]
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)

    def follow(self, block: Block) -> None:
        text = block.text
        for old, new in REPLACED.items():
            text = text.replace(old, new.format(port=self.port))
        line = text.strip()
        if line in FOREGROUND:
            self.start(line)
            return
        # What a block exports holds for those after it, as in one shell.
        script = f"set -eu\n{text}\nexport -p > .exported"
        before = ". ./.exported\n" if (self.directory / ".exported").exists() else ""
        arguments = ["/bin/bash", "-c", before + script]
        status, shown = run_on_terminal(arguments, self.variables, self.directory, ANSWERS)
        assert status == 0, f"{text}\n{shown}"
        assert "Traceback" not in shown
        self.shown[block.section] = self.shown.get(block.section, "") + shown

    def start(self, line: str) -> None:
        log = self.directory.parent / f"{line}.log"
        with log.open("wb") as file:
            # A new shell, which knows nothing of what was exported in the first one.
            self.running[line] = process = subprocess.Popen(
                shlex.split(line),
                cwd=self.directory,
                env=self.variables,
                executable=self.directory.parent / "bin" / "privyseal",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

        def look() -> bool:
            said = log.read_text()
            assert process.poll() is None, said
            return FOREGROUND[line] in said

        until(look, FOREGROUND[line])

    def stop(self, line: str) -> None:
        """Ctrl-C."""
        process = self.running.pop(line, None)
        if process is not None:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=DEADLINE_SECONDS) == 0


@contextmanager
def session(directory: Path) -> Iterator[Session]:
    programs, work, home = (directory / name for name in ("bin", "work", "home"))
    for one in (programs, work, home):
        one.mkdir()
    (programs / "privyseal").symlink_to(Path(sys.executable).with_name("privyseal"))
    variables = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    made = Session(directory=work, variables=variables, port=free_port())
    with ExitStack() as stack:
        for line in FOREGROUND:  # the hub is stopped last
            stack.callback(made.stop, line)
        yield made


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """The whole page, followed from its first line to its last."""
    need(programs=("softhsm2-util", "openssl"))
    with session(tmp_path_factory.mktemp("page")) as made:
        for block in blocks(PAGE, "sh"):
            if block.section in NOT_HERE:
                continue
            if block.section == "The first signature":
                copy_of_program(made.directory)
            if "key import" in block.text:
                answer_of_ca(made.directory)
            made.follow(block)
            if "key import" in block.text:
                made.stop("privyseal agent run --dir agent")
                made.start("privyseal agent run --dir agent")
        yield made


def answer_of_ca(directory: Path) -> None:
    """The certificate and its chain, for the request that the page made."""
    desk = directory.parent / "ca"
    desk.mkdir()
    leaf, middle, root = issue_by_openssl(desk, directory / "request.pem")
    (directory / "certificate.pem").write_bytes(leaf.read_bytes())
    (directory / "chain.pem").write_bytes(middle.read_bytes() + root.read_bytes())


def test_every_step_works(followed: Session) -> None:
    assert "acme (test)  ready" in followed.shown["The first signature"]
    assert "verified  app.exe" in followed.shown["The first signature"]
    assert re.search(r"^0 failed, 0 to look into, .*sound", followed.shown["The first signature"], re.MULTILINE)


def test_the_pin_is_kept_from_the_screen(followed: Session) -> None:
    assert "module  /usr/lib" in followed.shown["Add it"]
    assert all(PIN not in shown for shown in followed.shown.values())
    (pin_file,) = (followed.directory / "agent").glob("*.pin")
    assert (pin_file.read_text(), pin_file.stat().st_mode & 0o777) == (PIN, 0o600)


def test_openssl_takes_the_request(followed: Session) -> None:
    status, said = run_program("openssl", "req", "-verify", "-noout", "-in", followed.directory / "request.pem")

    assert (status, "verify OK" in said) == (0, True), said


def test_osslsigncode_takes_the_file_under_the_imported_certificate(followed: Session) -> None:
    root = followed.directory.parent / "ca" / "root.pem"

    status, said = run_program("osslsigncode", "verify", "-CAfile", root, "-in", followed.directory / "app.exe")

    assert (status, "Number of verified signatures: 1" in said) == (0, True), said
    assert "test = true" not in (followed.directory / "agent" / "agent.toml").read_text()


def test_all_that_can_be_run_is_run() -> None:
    sections = {block.section for block in blocks(PAGE, "sh")}

    assert set(NOT_HERE) < sections
    assert all(old in PAGE.read_text("utf-8") for old in [*REPLACED, *FOREGROUND])
    assert len(sections - set(NOT_HERE)) >= 7
