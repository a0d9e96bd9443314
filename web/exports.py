"""Items streamed as one text, range by range: flat in memory, and never short without showing it.

ndjson ends with a line that counts it; a CSV file has no room for one. Where anything goes wrong the stream breaks off
without its end, which HTTP shows to whoever reads it.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from typing import TYPE_CHECKING

import msgspec
import structlog
from flask import Response, request

from db.queries.exports import Format, Wanted, begin_export, note_export, read_range
from etl.errors import StorageError, TooSlowError
from web.extensions import service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from db.session import Database

HEADER = "Export-Id"
KINDS = {Format.NDJSON: "application/x-ndjson", Format.CSV: "text/csv; charset=utf-8"}
# Ids of a range at first and at most, and how long its text should be: bytes.
FIRST, MOST, AIM = 1000, 20_000, 2 * 1024 * 1024
# How often an export says that it goes on: seconds.
NOTED = 5.0
GZIP = 31

log = structlog.get_logger(__name__)


def export(export_id: UUID, wanted: Wanted) -> Response:
    """The items as a stream.

    Raises:
        TooManyExportsError: as many go on as may.
    """
    database = service().database
    last = database.transact(begin_export, export_id, wanted)
    text = _told(database, export_id, wanted, last)
    packed = request.accept_encodings["gzip"] > 0
    response = Response(_packed(text) if packed else text, content_type=KINDS[wanted.format])
    response.headers[HEADER] = str(export_id)
    response.headers["Content-Disposition"] = f'attachment; filename="items.{wanted.format}"'
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    return response


def _told(database: Database, export_id: UUID, wanted: Wanted, last: int) -> Iterator[bytes]:
    """The text, noted as complete when all of it was taken, and else as broken."""
    sum_, items, noted, state = hashlib.sha256(), 0, time.monotonic(), "broken"
    try:
        for text, count in _ranges(database, wanted, last):
            sum_.update(text)
            items += count
            yield text
            if time.monotonic() - noted > NOTED:
                noted = time.monotonic()
                database.transact(note_export, export_id, items, "running")
        if wanted.format is Format.NDJSON:
            end = {"export_id": str(export_id), "items": items, "sha256": sum_.hexdigest(), "complete": True}
            yield msgspec.json.encode(end) + b"\n"
        state = "complete"
    finally:
        _note_end(database, export_id, items, state, sum_.hexdigest() if state == "complete" else None)


def _note_end(database: Database, export_id: UUID, items: int, state: str, sha256: str | None) -> None:
    try:
        database.transact(note_export, export_id, items, state, sha256)
    except (StorageError, TooSlowError) as error:
        log.warning("export_not_noted", export_id=str(export_id), state=state, reason=error.message)


def _ranges(database: Database, wanted: Wanted, last: int) -> Iterator[tuple[bytes, int]]:
    if wanted.format is Format.CSV:
        yield (",".join(wanted.columns) + "\n").encode(), 0
    after, width = 0, FIRST
    while after < last:
        found = database.read(read_range, wanted, after, min(after + width, last))
        if found.items:
            yield found.text, found.items
        width = max(1, min(MOST, width * 2, (found.until - after) * AIM // max(len(found.text), 1) + 1))
        after = found.until


def _packed(text: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, GZIP)
    for part in text:
        if packed := packer.compress(part):
            yield packed
    yield packer.flush()
