# SPDX-License-Identifier: Apache-2.0
"""What the API tells of the USB devices that agents lend: which there are, who has one, and who waits for it.

Times are milliseconds since the epoch by the hub's clock.
"""

import msgspec

__all__ = ["DeviceView", "DevicesView", "LeaseView"]


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    pass


class LeaseView(_Body, frozen=True):
    """A lease that runs, or that somebody waits for.

    Attributes:
        request: Name of the request.
        state: `lent` from when the agent was asked to lend the device, else `waiting`.
        reason: In the client's words; may be empty.
        seconds: How long the client wants the device at most; the agent may give less.
        queued_ms: When the hub took the request.
        since_ms: When the agent was asked; None while it waits, or if that was another hub process's doing, or is not
            remembered any more.
        until_ms: When the lease ends at the latest; None if `since_ms` is.
    """

    request: str
    client: str
    state: str
    priority: str
    reason: str
    seconds: int
    queued_ms: int
    since_ms: int | None = None
    until_ms: int | None = None


class DeviceView(_Body, frozen=True):
    """A device.

    Attributes:
        name: Under which it is lent.
        agent: Whose it is.
        place: The queue that it is lent from, as `AGENT/TOKEN`; a key profile in the same place has to wait for leases.
        label, serial: What the device says of itself; empty while it is not there.
        level: `traced` or `pinned`, as for key profiles.
        online: Whether it can be lent, now or when who has it is done.
        code, problem, hint: Why not, as in docs/errors; empty if it can.
        leases: Who has it, and then who waits, in the order in which they will have it.
        waiting: How many wait; more than `leases` shows if they are many.
        signing: Whether its token is at work for a key profile, so that a lease has to wait for that.
    """

    name: str
    agent: str
    place: str
    label: str
    serial: str
    level: str
    online: bool
    code: str = ""
    problem: str = ""
    hint: str = ""
    leases: tuple[LeaseView, ...] = ()
    waiting: int = 0
    signing: bool = False

    @property
    def lent(self) -> LeaseView | None:
        """The lease that runs."""
        return next((one for one in self.leases if one.state == "lent"), None)


class DevicesView(_Body, frozen=True):
    """GET /v1/devices.

    Attributes:
        devices: By name.
        bundle: SHA-256 of the trust bundle that is in force.
        longest_seconds: How long a request may wait at this hub.
    """

    devices: tuple[DeviceView, ...]
    bundle: bytes
    longest_seconds: int = 3600
