# SPDX-License-Identifier: Apache-2.0
"""A cosignature judged by OpenSSL, over the message as C2SP tlog-cosignature writes it down."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from interop_tools import run_program
from privyseal.tlog.cosignature import Cosigner

pytestmark = pytest.mark.interop

TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


@pytest.mark.parametrize(("time", "status"), [("1679315147", 0), ("1679315148", 1)])
def test_openssl_verifies_a_cosignature(tmp_path: Path, time: str, status: int) -> None:
    key = Ed25519PrivateKey.generate()
    line = Cosigner(name="witness.example/w1", key=key).sign(TEXT, 1679315147).line
    value = base64.b64decode(line.split(" ")[2])
    key_file, message, signature = tmp_path / "key.pem", tmp_path / "message", tmp_path / "signature"
    key_file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    message.write_text(f"cosignature/v1\ntime {time}\n{TEXT}")
    signature.write_bytes(value[4 + 8 :])

    code, said = run_program(
        "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", key_file, "-rawin", "-in", message, "-sigfile", signature
    )

    assert code == status, said
    assert int.from_bytes(value[4:12], "big") == 1679315147
