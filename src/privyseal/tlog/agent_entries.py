# SPDX-License-Identifier: Apache-2.0
"""Entries about tokens: what an agent saw, did or was told to do beside signing.

An agent numbers what it tells. The hub gives each its time and its place in the log; the numbers of one agent follow
one another, so that a gap shows. A hub that was taken over could number anew what it leaves out.
"""

from privyseal.tlog.entry_base import BaseEntry, Integer

__all__ = ["AgentTold", "Custody", "Freeze", "Lease", "PinEvent", "Reconcile", "Recover", "TokenEvent"]


class AgentTold(BaseEntry, frozen=True):
    """What all of them have.

    Attributes:
        agent: SHA-256 of the agent's request key.
        seq: The agent's own number for it: 1, 2, 3, ….
        at: When it happened by the agent's clock, in milliseconds since the epoch.
        token: The token's serial number; its name in agent.toml if the token was never seen.
    """

    agent: str
    seq: Integer
    at: Integer
    token: str


class TokenEvent(AgentTold, frozen=True, tag="token"):
    """A token came, went, or was taken out of use or back into it.

    Attributes:
        event: `attached`, `detached`, `failed`, `quarantined` (it came back as another one, or may be in another
            place), `drained`, `resumed` (with the code `token.relocated` if a person has accepted its place with that)
            or `recycled`.
        code: Why, as in docs/errors; empty if there is nothing to say.
    """

    event: str
    code: str = ""


class PinEvent(AgentTold, frozen=True, tag="pin"):
    """Something that concerns a token's PIN, never the PIN itself.

    Attributes:
        event: `refused`, `unknown` (an attempt of which nobody knows the outcome), `blocked` (no attempt is made until
            a person acts), `locked`, `unlocked` (a person allowed attempts again), `changed` or `custody` (the agent
            made a PIN that no person knows).
        code: Why, as in docs/errors.
        authority: SHA-256 of the authority key that signed for it; empty if it was done on the token's host.
    """

    event: str
    code: str = ""
    authority: str = ""


class Recover(AgentTold, frozen=True, tag="recover"):
    """A step of the recovery ladder was taken; above 30 in a minute and token, those of one kind are only counted.

    Attributes:
        step: `session`, `module`, `worker`, `usb-reset`, `port-power`, `pcscd` or `reboot`.
        code: The error that led to it, as in docs/errors.
        function: The PKCS#11 function that failed; empty if none did.
        ckr: What it returned; -1 if it returned nothing.
        outcome: `done` or `failed`.
        count: How many such steps this stands for.
    """

    step: str
    code: str
    function: str
    ckr: Integer
    outcome: str
    count: Integer = 1


class Custody(AgentTold, frozen=True, tag="custody"):
    """An interval for which the agent says whether anybody else could have used a key.

    Attributes:
        key: SHA-256 of the SubjectPublicKeyInfo.
        since: Beginning of the interval by the agent's clock, in milliseconds since the epoch.
        until: Its end.
        state: `proven` or `unproven`.
        reason: Why it is unproven; empty if it is proven.
    """

    key: str
    since: Integer
    until: Integer
    state: str
    reason: str = ""


class Reconcile(AgentTold, frozen=True, tag="reconcile"):
    """A key's signature counter was held against what this agent signed with it.

    Attributes:
        key: SHA-256 of the SubjectPublicKeyInfo.
        enrolled: The counter when the agent first saw the key, or when a person accepted it.
        now: The counter now.
        results: Signatures that the token gave this agent since then.
        unknowns: Operations since then of which nobody knows whether the token carried them out.
        verdict: `match` or `mismatch`.
    """

    key: str
    enrolled: Integer
    now: Integer
    results: Integer
    unknowns: Integer
    verdict: str


class Freeze(AgentTold, frozen=True, tag="freeze"):
    """A key is not used until a person has looked into it, or is used again after that.

    Attributes:
        key: SHA-256 of the SubjectPublicKeyInfo.
        frozen: Whether it is frozen now.
        code: Why, as in docs/errors.
    """

    key: str
    frozen: bool
    code: str


class Lease(AgentTold, frozen=True, tag="lease"):
    """A USB lease has ended: what the device was used for meanwhile, as far as the agent could see.

    That it was given stands in the `intent` of its request; the whole report is what its `result` names.

    Attributes:
        request: The request's id.
        device: Name under which the device was lent.
        held: How long the holder had it, in milliseconds.
        ended: By whom or what, as in `LeaseReport`.
        clean: Whether the device was reset, and the cards in it switched off, before anybody else had it.
        operations: Private-key operations that succeeded.
        operations_refused: Those that the card refused.
        operations_unknown: Those of which nobody knows.
        pins: PINs that the card accepted; never the PINs.
        pins_refused: PINs that it refused.
        pins_unknown: PINs of which nobody knows.
        keys_made: Key pairs that were made; with those of unknown outcome.
        pins_changed: PINs that were changed; likewise.
        writes: Changes of the card's contents or life cycle; likewise.
        unproven: Why that may not be all; empty if it is.
    """

    request: str
    device: str
    held: Integer
    ended: str
    clean: bool
    operations: Integer
    operations_refused: Integer
    operations_unknown: Integer
    pins: Integer
    pins_refused: Integer
    pins_unknown: Integer
    keys_made: Integer
    pins_changed: Integer
    writes: Integer
    unproven: tuple[str, ...]
