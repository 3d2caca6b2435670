# SPDX-License-Identifier: Apache-2.0
"""deploy/systemd, judged by systemd's own tools; and that modules load without writable and executable memory."""

import ctypes
import os
import platform
import re
import shutil
import struct
import sys
from pathlib import Path

import pytest

from interop_tools import run_program
from programs import privyseal, succeeded
from softhsm import fresh_softhsm

pytestmark = pytest.mark.interop

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "deploy" / "systemd"
PAGE = ROOT / "docs" / "systemd.md"
PROGRAM = "/opt/privyseal/bin/privyseal"
SERVICES = ("hub", "agent")


def exposure(unit: Path) -> str:
    status, said = run_program("systemd-analyze", "--no-pager", "security", "--offline=true", unit)
    assert status == 0, said
    (level,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    return str(level)


@pytest.mark.parametrize("name", SERVICES)
def test_systemd_understands_the_units(name: str, tmp_path: Path) -> None:
    text = (UNITS / f"privyseal-{name}.service").read_text()
    unit = tmp_path / f"privyseal-{name}.service"
    unit.write_text(text.replace(PROGRAM, sys.executable))

    assert f"ExecStart={PROGRAM} {name} run --dir /var/lib/privyseal-{name}\n" in text
    assert run_program("systemd-analyze", "--recursive-errors=no", "verify", unit) == (0, "")


def test_systemd_understands_the_unit_of_a_borrowed_device(tmp_path: Path) -> None:
    text = (UNITS / "privyseal-device@.service").read_text()
    unit = tmp_path / "privyseal-device@ev-usb.service"
    unit.write_text(text.replace(PROGRAM, sys.executable).replace("/usr/sbin/modprobe", sys.executable))

    assert f"ExecStart={PROGRAM} device attach %i --keep " in text
    assert run_program("systemd-analyze", "--recursive-errors=no", "verify", unit) == (0, "")


def test_a_misspelt_line_would_be_noticed(tmp_path: Path) -> None:
    unit = tmp_path / "privyseal-hub.service"
    unit.write_text(
        (UNITS / unit.name).read_text().replace(PROGRAM, sys.executable) + "[Service]\nProtectEverything=1\n"
    )

    assert "ProtectEverything" in run_program("systemd-analyze", "--recursive-errors=no", "verify", unit)[1]


def test_the_page_states_the_exposure_that_systemd_finds() -> None:
    text = PAGE.read_text()
    (told,) = re.findall(r"`systemd-analyze security` gives the hub ([\d.]+) and the agent ([\d.]+)", text)
    (version,) = re.findall(r"a test holds these numbers for systemd\s+(\d+)", text)

    found = tuple(exposure(UNITS / f"privyseal-{name}.service") for name in SERVICES)

    if f"systemd {version} " in run_program("systemd-analyze", "--version")[1]:
        assert found == told
    assert max(map(float, found)) < 1.5  # other versions weigh a little differently


def with_addition(folder: Path, addition: str) -> Path:
    """The agent's unit with an addition, for systemd's tools."""
    unit = folder / "privyseal-agent.service"
    unit.write_text((UNITS / unit.name).read_text().replace(PROGRAM, sys.executable))
    (folder / f"{unit.name}.d").mkdir()
    shutil.copy(UNITS / f"privyseal-agent-{addition}.conf", folder / f"{unit.name}.d" / f"{addition}.conf")
    return unit


@pytest.mark.parametrize("addition", ["usb", "usb-recovery"])
def test_the_usb_additions_open_usb_devices_and_no_more(tmp_path: Path, addition: str) -> None:
    unit = with_addition(tmp_path, addition)

    said = run_program("systemd-analyze", "--no-pager", "security", "--offline=true", unit)[1]

    assert run_program("systemd-analyze", "--recursive-errors=no", "verify", unit) == (0, "")
    assert "char-usb_device:rw" in said
    assert float(exposure(UNITS / unit.name)) < float(exposure(unit)) < 2.0


def test_a_misspelt_line_of_an_addition_would_be_noticed(tmp_path: Path) -> None:
    unit = with_addition(tmp_path, "usb-recovery")
    with (tmp_path / f"{unit.name}.d" / "usb-recovery.conf").open("a") as file:
        file.write("OpenEverything=1\n")

    assert "OpenEverything" in run_program("systemd-analyze", "--recursive-errors=no", "verify", unit)[1]


def test_the_accounts_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()

    status, said = run_program("systemd-sysusers", f"--root={tmp_path}", UNITS / "privyseal.sysusers.conf")

    assert status == 0, said
    accounts = {
        line.split(":")[0]: line.split(":")[5] for line in (tmp_path / "etc" / "passwd").read_text().splitlines()
    }
    assert accounts == {f"privyseal-{name}": f"/var/lib/privyseal-{name}" for name in SERVICES}


def test_the_rules_are_for_the_account_of_the_unit() -> None:
    (account,) = re.findall(r"^User=(.*)$", (UNITS / "privyseal-agent.service").read_text(), re.MULTILINE)

    assert f'subject.user == "{account}"' in (UNITS / "50-privyseal-pcscd.rules").read_text()
    assert f'subject.user == "{account}"' in (UNITS / "51-privyseal-pcscd-restart.rules").read_text()
    assert f"-m u:{account}:rw " in (UNITS / "71-privyseal-usb.rules").read_text()


#: mmap and mprotect; their third argument holds PROT_WRITE (2) and PROT_EXEC (4).
CALLS = {"x86_64": (9, 10), "aarch64": (222, 226)}
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001


def deny_write_and_execute() -> None:
    """What MemoryDenyWriteExecute=yes does (systemd.exec(5)), by seccomp(2)."""
    mmap, mprotect = CALLS[platform.machine()]
    program = (
        (_LOAD, 0, 0, 0),
        (_EQUAL, 2, 0, mmap),
        (_EQUAL, 4, 0, mprotect),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, 32),
        (_AND, 0, 0, 6),
        (_EQUAL, 3, 4, 6),
        (_LOAD, 0, 0, 32),
        (_AND, 0, 0, 4),
        (_EQUAL, 0, 1, 4),
        (_RETURN, 0, 0, _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    filters = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filters, 0, 0):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def test_a_module_signs_without_writable_and_executable_memory(tmp_path: Path) -> None:
    hsm = fresh_softhsm(tmp_path)
    (tmp_path / "agent.toml").write_text(
        'name = "lab"\nhub = "https://localhost:1"\nweb = "https://localhost:2"\n'
        f'[[token]]\nname = "lab"\nkind = "pkcs11"\nmodule = "{hsm.module}"\npin_file = "pin"\n'
        f'environment = {{ SOFTHSM2_CONF = "{hsm.environment["SOFTHSM2_CONF"]}" }}\n'
    )

    listed = succeeded(privyseal("key", "list", "--dir", tmp_path, "--json", before=deny_write_and_execute))

    assert len(listed.document["keys"]) == 3


def test_the_filter_of_this_test_denies() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            deny_write_and_execute()
            import mmap  # noqa: PLC0415 - in the child

            mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        except PermissionError:
            os._exit(7)
        finally:
            os._exit(1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
