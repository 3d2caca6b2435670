# SPDX-License-Identifier: Apache-2.0
"""deploy/cell: the script's cell signs, also with one hub stopped, and ends without a trace; compose.yaml fits it."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from ruamel.yaml import YAML

from installation import copy_of_program
from interop_tools import require_program, run_program
from pages import ROOT
from postgres_server import find_binaries
from programs import environment, privyseal, succeeded, until

pytestmark = pytest.mark.interop

FOLDER = ROOT / "deploy" / "cell"


@pytest.fixture
def cell(tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """The directory of a cell that says it is ready, and the script."""
    if find_binaries() is None:
        require_program("initdb")
    directory, said = tmp_path / "cell", tmp_path / "said"
    with said.open("wb") as out:
        script = subprocess.Popen(
            [sys.executable, FOLDER / "cell.py", "run", "--dir", directory],
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:

        def is_ready() -> bool:
            assert script.poll() is None, said.read_text()
            return f"ready: {directory}" in said.read_text()

        until(is_ready, "the cell", seconds=90)
        yield directory, script
    finally:
        script.terminate()
        script.wait(timeout=60)


def test_the_script_s_cell_signs_with_either_hub(cell: tuple[Path, "subprocess.Popen[bytes]"], tmp_path: Path) -> None:
    directory, script = cell
    config = directory / "client" / "client.toml"
    pids = {path.stem: int(path.read_text()) for path in directory.glob("*.pid")}
    assert pids.keys() == {"hub-1", "hub-2", "haproxy", "agent"}

    for number, stopped in enumerate((None, "hub-1")):
        if stopped is not None:
            os.kill(pids[stopped], signal.SIGTERM)
        app = copy_of_program(tmp_path, f"{number}.exe")
        succeeded(privyseal("sign", "--key", "demo", app, config=config))
        succeeded(privyseal("verify", "--trust", directory / "test-root.pem", app, config=config))
    succeeded(privyseal("log", "verify", config=config))

    script.terminate()
    assert script.wait(timeout=60) == 0
    assert [name for name, pid in pids.items() if Path(f"/proc/{pid}").exists()] == []


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cell", FOLDER / "cell.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["cell"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_containers_are_the_script_s_layout(script: ModuleType) -> None:
    """No engine runs here: the file fits its schema, and names what the script writes into configurations."""
    file = FOLDER / "compose.yaml"
    code, said = run_program(
        str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec", file
    )
    assert code == 0, said
    services = YAML(typ="safe").load(file.read_text())["services"]
    layout = script.in_containers(Path("/cell"))

    for number, hub in enumerate(layout.hubs, start=1):
        assert services[hub.host]["command"] == ["hub", "run", "--dir", str(layout.hub_directory(number))]
    assert services["agent"]["command"] == ["agent", "run", "--dir", str(layout.agent)]
    assert services["client"]["environment"]["PRIVYSEAL_CONFIG"] == str(layout.client / "client.toml")
    assert services[layout.balancer.host]["command"][-1] == str(layout.haproxy / "haproxy.cfg")
    assert services[layout.balancer.host]["ports"] == [f"{port}:{port}" for port in (8443, 8444)]
    for step in ("prepare", "join"):
        assert services[step]["entrypoint"][1:] == ["/deploy/cell/cell.py", step, "--dir", str(layout.directory)]
    assert services["prepare"]["hostname"] == layout.hubs[0].host
    socket = layout.database.partition("host=")[2]
    assert f"postgres-socket:{socket}" in services["postgres"]["volumes"]
    text = script.balancing(layout)
    assert [text.count(f"server hub-{number} hub-{number}:") for number in (1, 2)] == [2, 2]
