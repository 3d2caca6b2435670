# SPDX-License-Identifier: Apache-2.0
"""Messages of the agent link: MessagePack, one message a WebSocket frame, the agent dials in.

The agent opens with `Hello` and `Announce`; from then on the hub sends `Job`, `OutcomeQuery` and `AddCheckpoint`, the
agent `Answers`, `OutcomeReply` and `CheckpointAnswer` (jobs: `privyseal.wire.jobs`). Several hub processes over one log
have a link each; where the agent saw a newer checkpoint over another one it says so (`Held`), and the next proof starts
there. What happens to its tokens the agent tells by itself: how they are (`TokenReport`), and what belongs into the log
(`Events`, until the hub says `EventsRecorded`). For whoever hands in a PIN at a desk the hub passes `UnlockQuery` and
`UnlockOrder` on, and `UnlockAnswer` back. WebSocket pings keep both sides sure of each other.
"""

from typing import Final, TypeVar

import msgspec

from privyseal.errors import MalformedInputError
from privyseal.wire.jobs import Answers, Job, LeaseRenewed, LinkMessage, OutcomeQuery, OutcomeReply, Recall

__all__ = [
    "LINK_VERSION",
    "MAX_MESSAGE_BYTES",
    "SIGN_BOUNDS_SECONDS",
    "AddCheckpoint",
    "AgentEvent",
    "AgentMessage",
    "Announce",
    "CheckpointAnswer",
    "Events",
    "EventsRecorded",
    "Held",
    "Hello",
    "HubMessage",
    "ProfileAnnouncement",
    "Refused",
    "TokenHealth",
    "TokenReport",
    "TrustChanged",
    "UnlockAnswer",
    "UnlockOrder",
    "UnlockQuery",
    "Welcome",
    "decode_agent",
    "decode_hub",
    "encode",
]

LINK_VERSION: Final = 5
MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
#: Bounds of the classes in which times of signatures are counted; longer ones are counted beyond the last.
SIGN_BOUNDS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ProfileAnnouncement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key profile that this agent serves; the agent's own configuration decides level and opaque formats.

    Attributes:
        token: Name of its token in agent.toml: profiles of one token share its lease, and its fence.
    """

    name: str
    token: str
    chain: tuple[bytes, ...]
    level: str
    opaque: tuple[str, ...]
    token_label: str
    token_serial: str
    hardware: bool
    witness: str = "off"
    test: bool = False
    problem_code: str = ""
    problem: str = ""
    problem_hint: str = ""


class Hello(LinkMessage, frozen=True, tag="hello"):
    """The agent's first message.

    Attributes:
        checkpoint_size, checkpoint_root: The newest checkpoint that it holds; size 0 if none.
        bundle: SHA-256 of the trust bundle that it goes by.
        witness: Verifier key under which it cosigns checkpoints.
    """

    version: int
    checkpoint_size: int
    checkpoint_root: bytes
    bundle: bytes
    witness: str


class Announce(LinkMessage, frozen=True, tag="announce"):
    """What the agent serves now; replaces what it announced before. A profile with a problem takes no jobs."""

    profiles: tuple[ProfileAnnouncement, ...]


class Welcome(LinkMessage, frozen=True, tag="welcome"):
    """The hub accepts the agent; it has the agent's events on record up to the number `recorded`."""

    name: str
    recorded: int


class Refused(LinkMessage, frozen=True, tag="refused"):
    """The hub does not accept the agent; the link ends."""

    code: str
    message: str


class TrustChanged(LinkMessage, frozen=True, tag="trust"):
    """The trust bundle that is in force now; an agent that takes it dials in again."""

    bundle: bytes


class AddCheckpoint(LinkMessage, frozen=True, tag="add-checkpoint"):
    """A checkpoint for the agent to cosign: the body of C2SP tlog-witness `add-checkpoint`."""

    body: str


class CheckpointAnswer(LinkMessage, frozen=True, tag="checkpoint"):
    """What the agent answers as a witness.

    Attributes:
        status: As in tlog-witness; 200 with a cosignature, 503 if its decision could not be made durable.
        text: The cosignature's line, or why there is none.
    """

    status: int
    text: str


class TokenHealth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one token of the agent's is.

    Attributes:
        name: In agent.toml.
        label, serial, model: What the token last said of itself; empty if it was never seen.
        state: `ready`, `absent`, `blocked` (its PIN must not be presented before a person acts), `quarantined` (it came
            back as another one), `frozen` (its counter does not fit), `drained`, `lent` (its device is lent as a whole)
            or `failed`.
        code, problem, hint: Why it is not ready; empty if it is.
        pin_state: What the token says of its PIN: `ok`, `count-low`, `final-try` or `locked`; empty if unknown.
        signatures, failures: Since the agent was started.
        restarts: How often its worker was started, the first time included.
        recoveries: Steps of the recovery ladder that were taken since the agent was started, by their name.
        sign_seconds: Time in which the token was signing, all together.
        sign_counts: Signatures that took at most as long as the bound of the same place in SIGN_BOUNDS_SECONDS and
            longer than the one before; the last one counts the longest.
        counter: The token's own count of signatures; None if it has none.
        trouble: Why it makes no headway now, whatever its state: it hangs, or is being recovered. Empty if it does.
        relocation: By what it may be in another place than the one on record: `usb-imported`, `usb-port`, `card-timing`
            or `network`; empty if nothing says so.
    """

    name: str
    state: str
    label: str = ""
    serial: str = ""
    model: str = ""
    hardware: bool = False
    code: str = ""
    problem: str = ""
    hint: str = ""
    pin_state: str = ""
    signatures: int = 0
    failures: int = 0
    restarts: int = 0
    recoveries: dict[str, int] = {}
    sign_seconds: float = 0.0
    sign_counts: tuple[int, ...] = ()
    counter: int | None = None
    trouble: str = ""
    relocation: tuple[str, ...] = ()


class TokenReport(LinkMessage, frozen=True, tag="tokens"):
    """How the agent's tokens are now; replaces what it said before."""

    tokens: tuple[TokenHealth, ...]


class AgentEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something for the log: an `AgentEntry` whose number, agent and time the hub fills in."""

    seq: int
    entry: bytes


class Events(LinkMessage, frozen=True, tag="events"):
    """What the agent wants on record, in the order of its numbers. Told again until the hub says that it has it."""

    events: tuple[AgentEvent, ...]


class EventsRecorded(LinkMessage, frozen=True, tag="recorded"):
    """The agent's events are on record up to this number."""

    through: int


class UnlockQuery(LinkMessage, frozen=True, tag="unlock?"):
    """An authority key's holder wants to hand in the PIN of a token, which is `token` in agent.toml.

    Attributes:
        ask: The hub's number for it; the answer bears it.
    """

    ask: int
    token: str


class UnlockOrder(LinkMessage, frozen=True, tag="unlock"):
    """The signed statement with the PIN sealed in it, as it came."""

    ask: int
    envelope: bytes


class UnlockAnswer(LinkMessage, frozen=True, tag="unlocked"):
    """What the agent says to either.

    Attributes:
        serial, nonce: The token's serial number, and what the statement must hold; to `UnlockQuery`.
        keys: How many signing keys the token shows after it took its PIN; to `UnlockOrder`.
        branch, code, message, hint: What went wrong instead; empty if nothing did.
    """

    ask: int
    serial: str = ""
    nonce: str = ""
    keys: int = 0
    branch: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""


class Held(LinkMessage, frozen=True, tag="held"):
    """The agent holds a newer checkpoint now, which it did not get over this link."""

    size: int


AgentMessage = Hello | Announce | Answers | OutcomeReply | CheckpointAnswer | Held | TokenReport | Events | UnlockAnswer
HubMessage = (
    Welcome
    | Refused
    | TrustChanged
    | Job
    | LeaseRenewed
    | Recall
    | OutcomeQuery
    | AddCheckpoint
    | EventsRecorded
    | UnlockQuery
    | UnlockOrder
)

_ENCODER: Final = msgspec.msgpack.Encoder()
_AGENT: Final[msgspec.msgpack.Decoder[AgentMessage]] = msgspec.msgpack.Decoder(AgentMessage)
_HUB: Final[msgspec.msgpack.Decoder[HubMessage]] = msgspec.msgpack.Decoder(HubMessage)
T = TypeVar("T")


def encode(message: AgentMessage | HubMessage) -> bytes:
    """One frame."""
    return _ENCODER.encode(message)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        message: T = decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedInputError("link.malformed", f"not a message of the agent link: {error}") from error
    return message


def decode_agent(data: bytes) -> AgentMessage:
    """Read what an agent sent.

    Raises:
        MalformedInputError: `link.malformed`.
    """
    return _decode(_AGENT, data)


def decode_hub(data: bytes) -> HubMessage:
    """Read what a hub sent.

    Raises:
        MalformedInputError: `link.malformed`.
    """
    return _decode(_HUB, data)
