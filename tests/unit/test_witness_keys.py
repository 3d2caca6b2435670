# SPDX-License-Identifier: Apache-2.0
"""Which keys a witness has: made, kept for their owner alone, both used on one decision, and known to its memory."""

from pathlib import Path

import pytest
from cryptography.hazmat.backends.openssl.backend import backend
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from lying_logs import log_of
from privyseal.errors import ConfigError, LogIntegrityError
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.cosignature import Cosigner, LogKey, cosignatures, parse_cosigner_vkey
from privyseal.tlog.note import Note, NoteSignature, NoteSigner
from privyseal.tlog.witness import AddCheckpoint, Refusal
from privyseal.witness.config import BOTH_KEYS, KeyType, WitnessFiles, init_witness, load_witness_config
from privyseal.witness.service import open_witness

ORIGIN = "log.example/a"
LOG = NoteSigner(name=ORIGIN, key=Ed25519PrivateKey.from_private_bytes(b"a" * 32))
PQ_LOG = Cosigner(name=ORIGIN, key=MLDSA44PrivateKey.from_seed_bytes(b"a" * 32))
TREE = log_of(*"abc")
CHECKPOINT = Checkpoint(origin=ORIGIN, size=TREE.size, root=TREE.root())


def request(*signatures: NoteSignature) -> bytes:
    note = Note(text=CHECKPOINT.text, signatures=signatures)
    return AddCheckpoint(old_size=0, proof=(), note=note, checkpoint=CHECKPOINT).encode().encode()


def made(directory: Path, keys: tuple[KeyType, ...], log_key: LogKey = LOG.verifier) -> tuple[str, ...]:
    """A witness that knows the log; its verifier keys."""
    cosigners = init_witness(directory, name="witness.example/w1", listen="127.0.0.1:0", keys=keys)
    with WitnessFiles(directory).config.open("a") as config:
        config.write(f'\n[[log]]\norigin = "{ORIGIN}"\nkey = "{log_key.vkey}"\n')
    return tuple(one.verifier.vkey for one in cosigners)


def cosigned(directory: Path, body: bytes) -> tuple[NoteSignature, ...] | Refusal:
    witness = open_witness(directory, clock=lambda: 1_700_000_000_999)
    try:
        return witness.add_checkpoint(body)
    finally:
        witness.close()


@pytest.mark.parametrize("keys", [BOTH_KEYS, ("ed25519",), ("ml-dsa-44",)], ids=" ".join)
def test_each_key_signs_one_decision_at_one_time(tmp_path: Path, keys: tuple[KeyType, ...]) -> None:
    vkeys = made(tmp_path / "w", keys)

    lines = cosigned(tmp_path / "w", request(LOG.sign(CHECKPOINT.text)))

    assert not isinstance(lines, Refusal)
    note = Note(text=CHECKPOINT.text, signatures=lines)
    found = cosignatures(note, tuple(parse_cosigner_vkey(vkey) for vkey in vkeys))
    assert [one.seconds for one in found] == [1_700_000_000] * len(keys)
    assert [one.key.vkey for one in found] == list(vkeys)
    assert len(lines) == len(keys)
    assert sorted(path.name for path in (tmp_path / "w").glob("*.key")) == [f"witness-{kind}.key" for kind in keys]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "w").glob("*.key")} == {0o600}


def test_a_log_that_signs_with_ml_dsa_alone_is_known_too(tmp_path: Path) -> None:
    made(tmp_path / "w", BOTH_KEYS, PQ_LOG.verifier)

    unknown = cosigned(tmp_path / "w", request(LOG.sign(CHECKPOINT.text)))
    assert isinstance(unknown, Refusal)
    assert unknown.status == 403
    assert not isinstance(cosigned(tmp_path / "w", request(PQ_LOG.sign(CHECKPOINT.text, 0))), Refusal)


def test_a_memory_belongs_to_its_keys(tmp_path: Path) -> None:
    made(tmp_path / "w", BOTH_KEYS)
    config = WitnessFiles(tmp_path / "w").config
    config.write_text(config.read_text().replace('["ed25519", "ml-dsa-44"]', '["ml-dsa-44"]'))

    with pytest.raises(LogIntegrityError) as caught:
        open_witness(tmp_path / "w")
    assert caught.value.code == "witness.state_unreadable"


def test_a_key_that_is_configured_must_be_there(tmp_path: Path) -> None:
    made(tmp_path / "w", BOTH_KEYS)
    (tmp_path / "w" / "witness-ml-dsa-44.key").unlink()

    with pytest.raises(ConfigError) as caught:
        open_witness(tmp_path / "w")
    assert caught.value.code == "file.missing"


def test_a_key_of_the_other_type_is_none(tmp_path: Path) -> None:
    made(tmp_path / "w", BOTH_KEYS)
    for one, other in (BOTH_KEYS, BOTH_KEYS[::-1]):
        path = WitnessFiles(tmp_path / "w").key(one)
        kept = path.read_bytes()
        path.write_bytes(WitnessFiles(tmp_path / "w").key(other).read_bytes())
        with pytest.raises(ConfigError) as caught:
            open_witness(tmp_path / "w")
        assert caught.value.code == "file.not_a_key"
        path.write_bytes(kept)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["ed25519", "ml-dsa-44"]', "[]", "at least one type of key"),
        ('["ed25519", "ml-dsa-44"]', '["ed25519", "ed25519"]', "each once"),
        ('["ed25519", "ml-dsa-44"]', '["rsa"]', "rsa"),
        (f'origin = "{ORIGIN}"', f'origin = "{"ö" * 128}"', "255 bytes"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    made(tmp_path / "w", BOTH_KEYS)
    config = WitnessFiles(tmp_path / "w").config
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))

    with pytest.raises(ConfigError) as caught:
        load_witness_config(tmp_path / "w")
    assert caught.value.code == "config.malformed"
    assert said in caught.value.message


def test_a_name_that_has_no_room_in_a_cosignature_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        init_witness(tmp_path / "w", name="w" * 256, listen="127.0.0.1:0")
    assert caught.value.code == "config.name"
    assert not (tmp_path / "w").exists()
    init_witness(tmp_path / "w", name="w" * 256, listen="127.0.0.1:0", keys=("ed25519",))


def test_an_installation_without_ml_dsa_makes_no_witness_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "mldsa_supported", lambda: False)

    with pytest.raises(ConfigError) as caught:
        init_witness(tmp_path / "w", name="w", listen="127.0.0.1:0")
    assert caught.value.code == "mldsa.unsupported"
    assert not (tmp_path / "w").exists()
