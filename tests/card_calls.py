# SPDX-License-Identifier: Apache-2.0
"""Calls on the lab's card through our worker, and what came of them."""

from dataclasses import dataclass

from lab.card_lab import CardLab
from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.tokens.factory import open_token
from privyseal.tokens.supervisor import WorkerToken

__all__ = ["ALWAYS_ID", "DIGEST", "RELEASE_ID", "Outcome", "sign", "sign_in_fresh_worker", "worker_pid"]

#: CKA_ID that OpenSC gives to the keys in slots 9A and 9C.
RELEASE_ID, ALWAYS_ID = b"\x01", b"\x02"
DIGEST = bytes(range(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`code` is `signed` or an error's."""

    code: str
    function: str = ""
    begun: bool = False


async def sign(lab: CardLab, token: WorkerToken, key_id: bytes = RELEASE_ID) -> Outcome:
    """One signature; if there is one it is verified with the card's certificate."""
    slot = 0x9A if key_id == RELEASE_ID else 0x9C
    mechanism = Mechanism.RSA_SHA256 if lab.kind(slot) == "rsa2048" else Mechanism.ECDSA_SHA256
    try:
        signature = await token.sign(key_id=key_id, mechanism=mechanism, digest=DIGEST)
    except TokenError as error:
        return Outcome(code=error.code, function=error.function, begun=error.begun)
    verify_digest(lab.spki(slot), mechanism, DIGEST, signature)
    return Outcome(code="signed")


async def sign_in_fresh_worker(lab: CardLab) -> str:
    """The code of one signature by a worker of its own."""
    token = open_token(lab.config())
    try:
        return (await sign(lab, token)).code
    finally:
        await token.close()


def worker_pid(token: WorkerToken) -> int:
    assert token._worker is not None
    return token._worker.pid
