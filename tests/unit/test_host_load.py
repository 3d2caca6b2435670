# SPDX-License-Identifier: Apache-2.0
"""A host on which programs wait for a processor is said to be busy."""

import os
import sys
from pathlib import Path

import pytest

from privyseal.agent.host_load import HostLoad


@pytest.mark.parametrize(("avg10", "busy"), [("0.00", False), ("19.99", False), ("20.00", True), ("100.00", True)])
@pytest.mark.parametrize("load", [0.1, 900.0])
def test_the_kernel_s_word_of_waiting_counts(tmp_path: Path, avg10: str, load: float, *, busy: bool) -> None:
    (tmp_path / "cpu").write_text(f"some avg10={avg10} avg60=7.00 avg300=87.05 total=207\nfull avg10=0.00\n")

    assert HostLoad(pressure=tmp_path / "cpu", load_average=lambda: load).is_busy() == busy


@pytest.mark.parametrize("text", [None, "", "some", "some avg10=x y", "\xff" * 9, "some avg10=1"])
@pytest.mark.parametrize("more", [False, True])
def test_without_it_the_load_average_counts(tmp_path: Path, text: str | None, *, more: bool) -> None:
    if text is not None:
        (tmp_path / "cpu").write_text(text)
    load = (os.cpu_count() or 1) + more * 0.01

    assert HostLoad(pressure=tmp_path / "cpu", load_average=lambda: load).is_busy() == more


@pytest.mark.skipif(sys.platform != "linux", reason="sysinfo(2) is Linux's")
def test_the_load_average_is_the_kernel_s() -> None:
    assert HostLoad().load_average() == pytest.approx(os.getloadavg()[0], abs=0.5)
