# SPDX-License-Identifier: Apache-2.0
"""A hub whose checkpoint bears a wrong line of the log's ML-DSA-44 key: whoever has pinned the key says so."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from lying_hub import HUB
from lying_logs import log_of, show_log
from lying_web import WebHub, running_hub
from privyseal.client.log import LogReader
from privyseal.errors import LogIntegrityError
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.note import NoteSignature

LOG = log_of(*"abcde")
TEXT = Checkpoint(origin=HUB, size=LOG.size, root=LOG.root()).text
OTHER = Cosigner(name=HUB, key=MLDSA44PrivateKey.from_seed_bytes(b"o" * 32))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WebHub]:
    with running_hub(tmp_path) as hub:
        yield hub


def own(hub: WebHub) -> Cosigner:
    return Cosigner(name=HUB, key=hub.trust.log_mldsa_key)


def test_a_line_that_holds_is_taken_and_none_is_missed(hub: WebHub) -> None:
    for lines in ((), (own(hub).sign(TEXT, 0),), (own(hub).sign(TEXT, 7),), (OTHER.sign(TEXT, 0),)):
        show_log(hub, LOG, lines)
        assert LogReader(hub.config).checkpoint().size == 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: replace(line, signature=line.signature[:-1]),
        lambda line: replace(line, signature=line.signature + b"\0"),
        lambda line: replace(line, signature=line.signature[:8] + bytes(2420)),
        lambda line: replace(line, signature=(7).to_bytes(8, "big") + line.signature[8:]),
        lambda line: replace(line, signature=OTHER.sign(TEXT, 0).signature),
        lambda line: replace(line, signature=b"\xff" * 2428),
    ],
    ids=["short", "long", "zeroes", "another time", "by another key", "time beyond all"],
)
def test_a_wrong_line_of_the_pinned_key_is_told(hub: WebHub, spoil: Callable[[NoteSignature], NoteSignature]) -> None:
    show_log(hub, LOG, (spoil(own(hub).sign(TEXT, 0)),))

    with pytest.raises(LogIntegrityError) as caught:
        LogReader(hub.config).checkpoint()
    assert caught.value.code == "log.checkpoint"
    assert f"cosignature by {HUB}" in caught.value.message
