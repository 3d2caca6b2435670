# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine: the two sides of a shared device, each a process of its own.

`serve SELECTOR PORT` exports over TCP until its stdin ends, and says one line of JSON for each session. SIGUSR1 ends
the session that runs, as the end of a lease does. `attach HOST PORT BUS_ID` attaches, says the port's number, and
detaches when its stdin ends or the stream does.
"""

import asyncio
import json
import os
import signal
import sys

from privyseal.errors import PrivysealError
from privyseal.usb.attach import attach, import_device
from privyseal.usb.exporter import Exporter, SessionReport
from privyseal.usb.host import UsbHost
from privyseal.usb.selector import parse_selector
from privyseal.usb.streams import SocketStream
from privyseal.usb.usbdevfs import kernel_device
from privyseal.usb.vhci import Origin

host = UsbHost()


def say(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def shown(report: SessionReport) -> dict[str, object]:
    counted = report.statistics
    return {
        "ended_by": report.ended_by.value,
        "reason": report.reason,
        "was_imported": report.was_imported,
        "was_powered_off": report.was_powered_off,
        "was_reset": report.was_reset,
        "give_back_error": str(report.give_back_error or ""),
        "urbs": counted.urbs,
        "errors": counted.errors,
        "cancelled": counted.cancelled,
        "round_trip_us": [counted.round_trips.percentile_us(percent) for percent in (50, 95, 100)],
    }


async def input_end() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, lambda: None if os.read(0, 1) else ended.set())
    await ended.wait()


async def serve(selector: str, port: int) -> None:
    running: dict[asyncio.Task[SessionReport], Exporter] = {}

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            device = await kernel_device(host, await host.find(parse_selector(selector)))
            exporter = Exporter(device)
            serving = asyncio.create_task(exporter.serve(SocketStream(reader, writer)))
            running[serving] = exporter
            report = await serving
            say(**shown(report))
            del running[serving]
        except PrivysealError as error:
            say(ended_by="nobody", reason=str(error))
            writer.close()

    def end_all() -> None:
        for exporter in running.values():
            exporter.end("the lease ended")

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, end_all)
    server = await asyncio.start_server(session, "127.0.0.1", port)
    say(ready=True)
    await input_end()
    server.close()
    end_all()
    if running:
        await asyncio.wait(running)


async def attached(address: str, port: int, bus_id: str) -> None:
    stream = SocketStream(*await asyncio.open_connection(address, port))
    try:
        device = await import_device(stream, bus_id)
    except PrivysealError as error:
        say(code=error.code)
        stream.close()
        return
    origin = Origin(host=address, service=str(port), bus_id=bus_id)
    attachment = await attach(stream, device, origin=origin)
    say(port=attachment.port)
    ending = [asyncio.create_task(input_end()), asyncio.create_task(attachment.ended())]
    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    await attachment.detach()
    say(did_the_stream_end=(await attachment.ended()).was_first)
    ending[0].cancel()


if __name__ == "__main__":
    role, first, *rest = sys.argv[1:]
    if role == "serve":
        asyncio.run(serve(first, int(rest[0])))
    else:
        asyncio.run(attached(first, int(rest[0]), rest[1]))
