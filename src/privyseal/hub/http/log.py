# SPDX-License-Identifier: Apache-2.0
"""The log as C2SP tlog-tiles lays it out, under /log/, and the OpenAPI document."""

import json
from typing import Final

import msgspec
from aiohttp import web

from privyseal.hub.http.openapi import openapi_document
from privyseal.hub.http.routes import Call, Handler, Listener, Permission, Route
from privyseal.hub.services.audit import pruned
from privyseal.ports.store import ReadTx
from privyseal.tlog.checkpoint import parse_decimal
from privyseal.tlog.tile import EntryBundle, Tile, encode_bundle, parse_path
from privyseal.tlog.tree import TILE_HEIGHT

__all__ = ["routes"]

_TILE_WIDTH: Final = 256
_IMMUTABLE: Final = "public, max-age=31536000, immutable"


def _note(note: str) -> web.Response:
    return web.Response(text=note, content_type="text/plain", headers={"Cache-Control": "no-cache"})


async def _checkpoint(call: Call) -> web.Response:
    await call.hub.audit.newest_head()  # also of another process over the same database
    return _note(call.hub.publication.newest())


async def _cosigned(call: Call) -> web.Response:
    note = call.hub.publication.cosigned()
    if note is None:
        raise web.HTTPNotFound(text="no witness has cosigned a checkpoint since this hub started\n")
    return _note(note)


def _present(place: Tile | EntryBundle, size: int) -> int:
    """How many hashes or entries from the place's first one on a tree of that size has."""
    level = place.level if isinstance(place, Tile) else 0
    return (size >> (TILE_HEIGHT * level)) - place.index * _TILE_WIDTH


async def _tile(call: Call) -> web.Response:
    place = parse_path("tile/" + call.request.match_info["path"])
    size = call.hub.store.head.size
    if place.width > _present(place, size):
        size = (await call.hub.audit.newest_head()).size
    if place.width > _present(place, size):
        raise web.HTTPNotFound(text=f"the log has {size} entries; this tile is not filled that far\n")

    async def read(tx: ReadTx) -> bytes:
        if isinstance(place, EntryBundle):
            entries = await tx.entries(place.index * _TILE_WIDTH, place.width)
            if not all(entries):
                raise pruned(place.index * _TILE_WIDTH)
            return encode_bundle(entries)
        return await tx.tile(place.level, place.index, place.width)

    body = await call.hub.store.read(read)
    return web.Response(body=body, content_type="application/octet-stream", headers={"Cache-Control": _IMMUTABLE})


async def _checkpoints(call: Call) -> web.Response:
    """At most 256 signed notes as JSON strings, one a line: as `privyseal log export` lays them out."""
    start = parse_decimal(call.request.match_info["start"], "checkpoint.malformed", "the number of a checkpoint")
    notes = await call.hub.store.read(lambda tx: tx.checkpoints(start, _TILE_WIDTH))
    body = "".join(json.dumps(note, ensure_ascii=False) + "\n" for note in notes)
    return web.Response(text=body, content_type="application/jsonl", headers={"Cache-Control": "no-cache"})


def routes(others: tuple[Route, ...]) -> tuple[Route, ...]:
    """These routes, and the OpenAPI document over them and all others."""

    async def openapi(_call: Call) -> web.Response:
        document = openapi_document((*others, *own))
        return web.Response(body=msgspec.json.encode(document), content_type="application/json")

    def public(path: str, summary: str, handler: Handler) -> Route:
        return Route(
            method="GET",
            path=path,
            listener=Listener.WEB,
            permission=Permission.ANYONE,
            audit="none",
            summary=summary,
            handler=handler,
        )

    own = (
        public("/log/checkpoint", "The newest checkpoint, a C2SP signed note", _checkpoint),
        public("/log/cosigned", "The newest checkpoint that witnesses have cosigned, with their lines", _cosigned),
        public("/log/tile/{path:.+}", "Tiles and entry bundles (C2SP tlog-tiles)", _tile),
        public("/log/checkpoints/{start}", "256 stored checkpoints from the start-th on", _checkpoints),
        public("/openapi.json", "This API", openapi),
    )
    return own
