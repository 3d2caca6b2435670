# SPDX-License-Identifier: Apache-2.0
"""`privyseal device`: USB devices that agents lend as a whole."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from privyseal.cli.authority import AsJson, Authority, administration
from privyseal.cli.device_lines import cost_text, device_lines, lease_lines
from privyseal.cli.render import emit, say
from privyseal.client.config import load_client_config
from privyseal.client.hub import HubClient
from privyseal.errors import ConfigError
from privyseal.ports.clock import system_clock
from privyseal.wire.devices import DeviceView, LeaseView

if TYPE_CHECKING:
    from privyseal.client.devices import DeviceClient
    from privyseal.client.lease_request import LeaseWish

__all__ = ["attach", "detach", "kick", "leases", "list", "run"]

_DURATION: Final = re.compile(r"([0-9]{1,6})(s|m|h)", re.ASCII)
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What is wanted.

    Attributes:
        seconds: For how long at most, such as 90s, 10m or 2h.
        reason: Why, for those who wait; everybody at the hub can read it.
        wait: Wait for the turn. With --no-wait it is refused at once if somebody else has the device (exit 8).
        timeout: Seconds that the turn is waited for; then exit 8.
        priority: Class in the queue: a higher one comes before a lower one, of all clients.
        grace: Seconds that the network may be away in the midst of the lease, 30 at most.
    """

    seconds: Annotated[str, Parameter(name="--for")] = "10m"
    reason: str = ""
    wait: bool = True
    timeout: Annotated[float | None, Parameter(validator=Number(gte=0))] = None
    priority: Literal["release", "normal", "nightly"] = "normal"
    grace: Annotated[float, Parameter(validator=Number(gte=0, lte=30))] = 0.0


def list(*, as_json: AsJson = False, config: str = "") -> None:  # noqa: A001 - the command's name
    """The devices: which there are, who has one, and what one signature costs there from here.

    Parameters
    ----------
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    from privyseal.client.round_trip import round_trip_seconds  # noqa: PLC0415 - for this command alone

    hub = HubClient(load_client_config(config))
    devices = hub.devices().devices
    if not devices:
        emit({"devices": []}, ("no agent lends a device",), as_json=as_json)
        return
    seconds = round_trip_seconds(hub.devices)
    lines = (*device_lines(devices, system_clock()), "", cost_text(seconds))
    data = {"devices": msgspec.to_builtins(devices), "hub_round_trip_ms": round(seconds * 1000, 3)}
    emit(data, lines, as_json=as_json)


def leases(name: str = "", /, *, as_json: AsJson = False, config: str = "") -> None:
    """Who has a device, since when, why and until when at most; and who waits, in their order.

    Parameters
    ----------
    name
        Of this device alone.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    devices = HubClient(load_client_config(config)).devices().devices
    if name:
        devices = (_named(devices, name),)
    data = [{"device": one.name} | msgspec.to_builtins(lease) for one in devices for lease in one.leases]
    emit({"leases": data}, lease_lines(devices, system_clock()), as_json=as_json)


def detach(name: str, /, *, as_json: AsJson = False, config: str = "") -> None:
    """End this client's own lease of a device, or no longer wait for it; from another shell than the one that has it.

    Parameters
    ----------
    name
        The device.
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    loaded = load_client_config(config)
    hub = HubClient(loaded)
    device = _named(hub.devices().devices, name)
    own = [one for one in device.leases if one.client == loaded.name]
    if not own:
        raise _not_held(device, f"client {loaded.name!r} has no lease of device {name!r}, and waits for none")
    for one in own:
        hub.cancel(one.request)
    _emit_ended(device, own, as_json=as_json)


def kick(name: str, /, *, reason: str, authority: Authority = (), as_json: AsJson = False, config: str = "") -> None:
    """End the lease of whoever has a device: it is asked back, reset, and goes to who waits next.

    Parameters
    ----------
    name
        The device.
    reason
        Why; it is told to who has it.
    authority
        Authority key file, may be repeated (default: authority.key beside the client configuration).
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    desk = administration(authority, config)
    device = _named(HubClient(load_client_config(config)).devices().devices, name)
    lent = device.lent
    if lent is None:
        raise _not_held(device, f"nobody has device {name!r}")
    desk.cancel_request(lent.request, reason=reason)
    _emit_ended(device, [lent], as_json=as_json)


def _not_held(device: DeviceView, why: str) -> ConfigError:
    return ConfigError("device.not_held", why, hint=f"privyseal device leases {device.name}")


def _emit_ended(device: DeviceView, ended: Sequence[LeaseView], *, as_json: bool) -> None:
    lines = [
        f"asked {one.client} to give {device.name} back"
        if one.state == "lent"
        else f"{one.client} waits no longer for {device.name}"
        for one in ended
    ]
    emit({"device": device.name, "ended": [msgspec.to_builtins(one) for one in ended]}, lines, as_json=as_json)


def attach(
    name: str,
    /,
    *,
    want: Want | None = None,
    port: Annotated[int | None, Parameter(validator=Number(gte=0, lte=65535))] = None,
    keep: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    config: str = "",
) -> int:
    """Borrow a device and attach it to this host, until Ctrl-C or the end of its lease.

    Needs Linux's vhci_hcd and the right to use it (root); elsewhere --port offers it to a stock USB/IP client.

    Parameters
    ----------
    name
        The device.
    port
        Offer it at this port of 127.0.0.1 to the first USB/IP client that connects within ten seconds, instead of
        attaching it; 0 for any that is free.
    keep
        Go on for ever, as a service: after each end it is asked for again, in turn.
    as_json
        Print a JSON document when it is attached, and one when it has ended.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    wish = _wish(name, want or Want())

    def work(client: "DeviceClient") -> Coroutine[Any, Any, int]:
        from privyseal.cli.device_attach import Attaching  # noqa: PLC0415 - as `_borrowing`
        from privyseal.cli.device_session import Place  # noqa: PLC0415

        return Attaching(wish=wish, place=Place(port=port), keep=keep, as_json=as_json).run(client)

    return _borrowing(config, work)


def run(
    name: str,
    /,
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    want: Want | None = None,
    as_json: AsJson = False,
    config: str = "",
) -> int:
    """Borrow a device for one command: attach it, wait until it is there, run the command, give it back.

    The exit code is the command's; if the device could not be had: 8, or 4 denied, 7 hub or agent away.

    Parameters
    ----------
    name
        The device.
    command
        The command and its arguments, behind `--`.
    as_json
        Print a JSON document of what was counted when all is over.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    if not command:
        raise ConfigError(
            "usage.arguments", "no command was given", hint=f"privyseal device run {name} -- COMMAND ARGUMENTS"
        )
    wish = _wish(name, want or Want())

    async def work(client: "DeviceClient") -> int:
        from privyseal.cli.device_end import end_data, end_error, end_lines  # noqa: PLC0415 - as `_borrowing`
        from privyseal.cli.device_run import run_command  # noqa: PLC0415

        end, code = await run_command(client, wish, command)
        if as_json:
            emit(end_data(name, end) | {"exit": code}, (), as_json=True)
        else:
            for line in end_lines(name, end):
                say(line)
        if code == 0 and (failure := end_error(name, end)) is not None:
            raise failure
        return code

    return _borrowing(config, work)


def _borrowing(config: str, work: "Callable[[DeviceClient], Coroutine[Any, Any, int]]") -> int:
    """Do something with a client that can borrow; what that needs is imported for it alone."""
    from privyseal.cli.device_session import StopError  # noqa: PLC0415
    from privyseal.client.devices import DeviceClient  # noqa: PLC0415

    try:
        from privyseal.relay.socket import dial_relay  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise ConfigError(
            "install.extra",
            "borrowing devices needs aiohttp, which the bare install does not bring",
            hint="pip install 'privyseal[usb]'",
        ) from error
    client = DeviceClient(load_client_config(config), dial_relay)
    try:
        return asyncio.run(work(client))
    except StopError:
        raise KeyboardInterrupt from None


def _wish(name: str, want: Want) -> "LeaseWish":
    from privyseal.client.lease_request import LeaseWish  # noqa: PLC0415 - as `_borrowing`

    return LeaseWish(
        device=name,
        seconds=_seconds(want.seconds),
        reason=want.reason,
        priority=want.priority,
        wait_seconds=want.timeout if want.wait else 0.0,
        grace_seconds=want.grace,
    )


def _seconds(text: str) -> int:
    found = _DURATION.fullmatch(text)
    seconds = 0 if found is None else int(found[1]) * _UNIT_SECONDS[found[2]]
    if not 1 <= seconds <= 86_400:
        raise ConfigError(
            "device.duration", f"--for {text}: that is no length of a lease", hint="90s, 10m or 2h; a day at most"
        )
    return seconds


def _named(devices: tuple[DeviceView, ...], name: str) -> DeviceView:
    from privyseal.client.devices import found_device  # noqa: PLC0415 - as `_borrowing`
    from privyseal.wire.devices import DevicesView  # noqa: PLC0415

    return found_device(DevicesView(devices=devices, bundle=b""), name)
