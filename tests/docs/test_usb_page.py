# SPDX-License-Identifier: Apache-2.0
"""docs/usb.md: its commands run at a hub with a device, its configuration is read, its output is the program's."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from device_site import SLOT, DeviceSite, device_site
from lab.piv.keys import load_or_make_keys
from pages import ROOT, blocks
from privyseal.agent.config import AgentFiles, load_agent_config
from privyseal.agent.joining import open_sealing_key
from privyseal.cli.device_end import end_lines
from privyseal.cli.device_lines import ROUND_TRIPS
from privyseal.client.devices import LeaseEnd
from privyseal.client.lease_request import RecordedLease
from privyseal.identity.keyfile import sealing_key_text
from privyseal.wire.leases import LeaseReport, LeaseTally
from programs import environment

PAGE = ROOT / "docs" / "usb.md"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[DeviceSite]:
    async with device_site(tmp_path, load_or_make_keys(tmp_path, {SLOT: "p256"})) as made:
        yield made


async def test_each_command_does_what_the_page_says(site: DeviceSite) -> None:
    files = AgentFiles(site.directory / "pi")
    key = sealing_key_text(open_sealing_key(files.sealing_key).public_key().public_bytes_raw())
    variables = environment(site.directory, site.directory / "client.toml")
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    said = []
    for line in [line for block in blocks(PAGE, "sh") for line in block.text.splitlines()]:
        text = line.replace("x25519:KEY", key)

        def run(text: str = text) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["sh", "-euc", text],
                cwd=site.directory,
                env=variables,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        done = await asyncio.to_thread(run)
        assert done.returncode == 0, done
        said.append(done.stdout)

    trusted, invited, listed, leases = said
    assert "pi" in trusted
    assert "pvjoin1-" in invited
    assert re.search(r"ev-usb +pi +free", listed)
    assert "nobody has a device" in leases


def test_the_configuration_is_read(tmp_path: Path) -> None:
    (example,) = blocks(PAGE, "toml")
    (tmp_path / "agent.toml").write_text(example.text)
    (device,) = load_agent_config(tmp_path).device

    assert (device.name, device.minutes, device.refuse) == ("ev-usb", 30.0, ("initialisation",))
    assert device.selector.serial == "01A2B3C4"


def test_the_output_that_is_shown_is_the_programs() -> None:
    tallies = (
        LeaseTally(what="private-key-operation", kind="sign", outcome="ok", count=2),
        LeaseTally(what="pin-verification", kind="", outcome="accepted", count=1),
    )
    report = LeaseReport(
        device="ev-usb",
        usb="0529:0620",
        held_ms=250_000,
        ended_by="holder",
        reason="the client ended the connection",
        clean=True,
        tallies=tallies,
        unproven=(),
        refused=0,
        apdus=100,
        urbs=2710,
        bytes_in=1,
        bytes_out=1,
        errors=0,
        round_trip_us=900,
        link_round_trip_us=11_800,
    )
    recorded = RecordedLease(report=report, receipt="", log_index=1042)
    end = LeaseEnd(ended_by="holder", reason=report.reason, report=report, recorded=recorded, problem=None)
    text = PAGE.read_text("utf-8")

    assert "```\n" + "\n".join(end_lines("ev-usb", end)) + "\n```" in text
    assert ROUND_TRIPS == 100
    assert "about a hundred round trips" in text
