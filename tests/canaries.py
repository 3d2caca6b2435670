# SPDX-License-Identifier: Apache-2.0
"""Looking for a secret in all that is written, logged or shown to other processes."""

import base64
from collections.abc import Iterable
from pathlib import Path

from installation import Site
from privyseal.client.log import LogReader

__all__ = ["finds", "in_memory", "processes", "shapes", "shown"]


def shapes(secret: bytes) -> list[bytes]:
    """How a secret may look where somebody has written it down."""
    standard = [base64.b64encode(secret[start:])[: (len(secret) - start) // 3 * 4] for start in range(3)]
    texts = [secret.hex().encode(), secret.hex().upper().encode(), repr(secret)[2:-1].encode(), *standard]
    return [secret, secret[::-1], secret.decode("latin-1").encode("utf-16-le"), *texts]


def shown(secret: bytes, data: bytes) -> bool:
    return any(shape in data or shape in data.replace(b"-", b"+").replace(b"_", b"/") for shape in shapes(secret))


def processes(site: Site) -> list[int]:
    """Hub, agent and the worker below it."""
    running = list(site.running.values())
    return [pid for one in running for pid in [one.process.pid, *one.children]]


def in_memory(secret: bytes, pid: int) -> bool:
    """Whether a process has the secret in memory that it could write to."""
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    places = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines if line[1].startswith("rw")]
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for begin, end in places:
            memory.seek(begin)
            try:
                if secret in memory.read(end - begin):
                    return True
            except OSError:  # what is mapped and cannot be read, as [vvar]
                continue
    return False


def files(*directories: Path) -> Iterable[Path]:
    return (path for directory in directories for path in directory.rglob("*") if path.is_file())


def finds(secret: bytes, site: Site, *more: Path, but: tuple[Path, ...] = ()) -> list[str]:
    """Every place that shows the secret."""
    places = {str(path): path.read_bytes() for path in files(site.directory, *more) if path not in but}
    for pid in processes(site):
        for name in ("cmdline", "environ"):
            places[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes()
    reader = LogReader(site.client())
    size = reader.checkpoint().size
    places |= {f"entry {index}": entry for index, entry in reader.entries(0, size)}
    assert len(places) > size + 20
    return [place for place, data in places.items() if shown(secret, data)]
