# SPDX-License-Identifier: Apache-2.0
"""A host on which programs wait for a processor is said to be busy."""

import os
from pathlib import Path

import pytest

from privyseal.agent.host_load import HostLoad


@pytest.mark.parametrize(("avg10", "busy"), [("0.00", False), ("19.99", False), ("20.00", True), ("100.00", True)])
@pytest.mark.parametrize("load", ["0.10", "900.00"])
def test_the_kernel_s_word_of_waiting_counts(tmp_path: Path, avg10: str, load: str, *, busy: bool) -> None:
    (tmp_path / "cpu").write_text(f"some avg10={avg10} avg60=7.00 avg300=87.05 total=207\nfull avg10=0.00\n")
    (tmp_path / "loadavg").write_text(f"{load} 1.00 1.00 1/200 4711\n")

    assert HostLoad(pressure=tmp_path / "cpu", load=tmp_path / "loadavg").is_busy() == busy


@pytest.mark.parametrize("more", [False, True])
def test_without_it_the_load_average_counts(tmp_path: Path, *, more: bool) -> None:
    (tmp_path / "loadavg").write_text(f"{(os.cpu_count() or 1) + more * 0.01:.2f} 1.00 1.00 1/200 4711\n")

    assert HostLoad(pressure=tmp_path / "gone", load=tmp_path / "loadavg").is_busy() == more


@pytest.mark.parametrize("text", ["", "some", "some avg10=x y", "\xff" * 9, "some avg10=1"])
def test_where_nobody_can_tell_it_is_not_busy(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu").write_text(text)

    assert not HostLoad(pressure=tmp_path / "cpu", load=tmp_path / "cpu").is_busy()
