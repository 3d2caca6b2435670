# SPDX-License-Identifier: Apache-2.0
"""The agent's own check is a pure function: whatever a hub changes in a job, it is refused or means the same."""

import hashlib
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from lied_to_agent import with_item, with_member, with_part
from lying_hub import HOUR_MS, NOW_MS, PROFILE, TOKEN, Key, LyingHub, make_trust, pe_preimage
from privyseal.agent.check import CheckedItem, CheckedPart, Held, KeyProfile, check_checkpoint, check_job
from privyseal.errors import LogIntegrityError, PrivysealError, VerificationError
from privyseal.pki.mechanism import Mechanism
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.tree import EMPTY_ROOT
from privyseal.wire.jobs import Job
from privyseal.wire.link import decode_hub, encode
from wire_samples import mutated

AGENT_KEY = bytes(range(32))
SPKI = (
    ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)
TRUST = make_trust()
PROFILE_HERE = KeyProfile(
    name=PROFILE, token=TOKEN, spki=SPKI, level="traced", opaque=(), not_before_ms=0, not_after_ms=NOW_MS * 2
)
NOTHING = Held(size=0, root=EMPTY_ROOT)


def honest_job() -> Job:
    hub = LyingHub(TRUST, Key(spki=SPKI, agent=AGENT_KEY))
    return hub.job(hub.ask(hub.enrol(), pe_preimage(1), pe_preimage(2)))


JOB = honest_job()
(PART,) = JOB.parts


def check_parts(job: Job, checkpoint: Checkpoint, now_ms: int) -> tuple[CheckedPart | PrivysealError, ...]:
    """All steps of the check of a job's parts."""
    steps = check_job(job, checkpoint, profile=PROFILE_HERE, bundle=TRUST.bundle, agent_key=AGENT_KEY, now_ms=now_ms)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: tuple[CheckedPart | PrivysealError, ...] = end.value
            return found


def check(job: Job, held: Held = NOTHING) -> tuple[CheckedItem, ...]:
    """Both halves of the check, as the executor does them: what may be signed."""
    checkpoint = check_checkpoint(job, held, TRUST.bundle)
    parts = check_parts(job, checkpoint, NOW_MS)
    return tuple(item for part in parts if isinstance(part, CheckedPart) for item in part.items)


ORDERS = check(JOB)


def test_the_order_for_the_token_is_what_the_preimage_says() -> None:
    assert [order.item for order in ORDERS] == [0, 1]
    for order, item in zip(ORDERS, PART.items, strict=True):
        assert order.digest == hashlib.sha256(item.signed).digest()
        assert order.mechanism is Mechanism.ECDSA_SHA256
        assert order.entry == item.entry


def means_the_same(job: Job) -> bool:
    """Whether the agent would sign nothing but (a part of) what it would sign for the honest job."""
    try:
        return set(check(job)) <= set(ORDERS)
    except PrivysealError:
        return True


def test_a_job_is_for_the_token_whose_lease_it_names() -> None:
    with pytest.raises(VerificationError) as caught:
        check(msgspec.structs.replace(JOB, token="another"))

    assert caught.value.code == "job.token"


@settings(max_examples=300)
@given(st.data())
def test_any_changed_byte_of_the_message_gets_nothing_else_signed(data: st.DataObject) -> None:
    try:
        job = decode_hub(data.draw(mutated(encode(JOB))))
    except PrivysealError:
        return
    assert not isinstance(job, Job) or means_the_same(job)


FIELDS: list[tuple[str, ...]] = [
    *(("job", name) for name in Job.__struct_fields__ if name != "parts"),
    ("part", "envelope"),
    *(("membership", name) for name in type(PART.membership).__struct_fields__),
    *(("item", name) for name in type(PART.items[0]).__struct_fields__),
]
values = {
    bytes: st.binary(max_size=100),
    str: st.text(max_size=100),
    int: st.integers(-(2**63), 2**64 - 1),
    tuple: st.lists(st.binary(max_size=33), max_size=70).map(tuple),
}


def changed(place: str, field: str, value: Any) -> Job:
    replace = msgspec.structs.replace
    if place == "job":
        return replace(JOB, **{field: value})
    if place == "part":
        return with_part(JOB, **{field: value})
    if place == "membership":
        return with_member(JOB, **{field: value})
    return with_item(JOB, **{field: value})


@pytest.mark.parametrize(("place", "field"), FIELDS, ids="-".join)
@settings(max_examples=30)
@given(data=st.data())
def test_any_other_value_of_any_field_gets_nothing_else_signed(place: str, field: str, data: st.DataObject) -> None:
    owner = {"job": JOB, "part": PART, "membership": PART.membership, "item": PART.items[0]}[place]
    original = getattr(owner, field)
    fresh = values[type(original)]
    spoilt = mutated(original) if isinstance(original, bytes) and original else fresh

    assert means_the_same(changed(place, field, data.draw(fresh | spoilt)))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_check_of_a_checkpoint_depends_on_what_is_held(size: int) -> None:
    hub = LyingHub(TRUST, Key(spki=SPKI, agent=AGENT_KEY))
    member, *_ = [hub.enrol() for _ in range(4)]
    hub.held_size = size
    job, root = hub.job(hub.ask(member)), hub.log.root(size)

    assert check_checkpoint(job, Held(size=size, root=root), TRUST.bundle).size == hub.log.size
    for held in (Held(size=size, root=bytes(32)), Held(size=size, root=b""), NOTHING):
        with pytest.raises(LogIntegrityError) as caught:
            check_checkpoint(job, held, TRUST.bundle)
        assert caught.value.code == "log.fork"
    with pytest.raises(LogIntegrityError) as rewound:
        check_checkpoint(job, Held(size=2**40, root=bytes(32)), TRUST.bundle)
    assert rewound.value.code == "log.rewound"


def test_time_is_an_argument() -> None:
    checkpoint = check_checkpoint(JOB, NOTHING, TRUST.bundle)
    parts = check_parts(JOB, checkpoint, NOW_MS + HOUR_MS + 1)
    assert [part.code for part in parts if isinstance(part, PrivysealError)] == ["job.expired"]
    with pytest.raises(PrivysealError, match=r"certificate\.expired"):
        check_parts(JOB, checkpoint, -1)
