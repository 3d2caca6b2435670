# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine: the agent's account, which may do what the udev rules of the project let it do."""

import subprocess
from pathlib import Path

__all__ = ["AS_ACCOUNT", "add_account", "add_rules"]

_ACCOUNT = "privyseal-agent"
#: Before a command: it runs as that account, without capabilities.
AS_ACCOUNT = (
    *("setpriv", f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--init-groups", "--no-new-privs"),
    *("--inh-caps=-all", "--bounding-set=-all"),
)


def add_account() -> None:
    subprocess.run(["useradd", "--system", _ACCOUNT], check=True)


def add_rules() -> None:
    Path("/run/udev/rules.d").mkdir(parents=True)
    rules = Path("/deploy/71-privyseal-usb.rules")
    (Path("/run/udev/rules.d") / rules.name).write_bytes(rules.read_bytes())
    subprocess.run(["udevadm", "control", "--reload"], check=True)
    for action in ("add", "bind"):
        subprocess.run(["udevadm", "trigger", f"--action={action}", "--subsystem-match=usb", "--settle"], check=True)
