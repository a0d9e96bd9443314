"""Items streamed as one text, range by range: flat in memory, and never short without showing it.

ndjson ends with a line that counts it; a CSV file has no room for one. Where anything goes wrong the stream breaks off
without its end, which HTTP shows to whoever reads it.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import structlog
from flask import Response, request

from db.queries.exports import Format, Wanted, begin_export, note_export
from etl.errors import OldProtocolError, StorageError, TooSlowError
from web.extensions import service
from web.packing import PACKERS, packed
from web.parquet import check_installed, parquet
from web.ranges import head, ranges

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from uuid import UUID

    from db.session import Database

HEADER = "Export-Id"
KINDS = {
    Format.NDJSON: "application/x-ndjson",
    Format.CSV: "text/csv; charset=utf-8",
    Format.PARQUET: "application/vnd.apache.parquet",
}
# How often an export says that it goes on: seconds.
NOTED = 5.0
# The slowest reader that is borne takes this in 40 s: bytes.
SENT_AT_ONCE = 256 * 1024

log = structlog.get_logger(__name__)


def export(export_id: UUID, wanted: Wanted) -> Response:
    """The items as a stream.

    Raises:
        TooManyExportsError: as many go on as may.
        NotInstalledError: what makes a Parquet file is not there.
        OldProtocolError: it would have no end that shows.
    """
    packing = None if wanted.format is Format.PARQUET else request.accept_encodings.best_match(PACKERS)
    if wanted.format is Format.PARQUET:
        check_installed()
    if wanted.format is Format.CSV and packing is None and request.environ["SERVER_PROTOCOL"] == "HTTP/1.0":
        raise OldProtocolError(
            "over HTTP/1.0 a CSV file that broke off looks whole: ask over 1.1, packed, or for ndjson"
        )
    if request.method == "HEAD":
        return Response(iter(()), content_type=KINDS[wanted.format])
    database = service().database
    last = database.transact(begin_export, export_id, wanted)
    text = _told(database, export_id, wanted, _parts(database, wanted, last))
    body = packed(text, packing) if packing else text
    response = Response(body, content_type=KINDS[wanted.format])
    response.headers[HEADER] = str(export_id)
    response.headers["Content-Disposition"] = f'attachment; filename="items.{wanted.format}"'
    if packing:
        response.headers["Content-Encoding"] = packing
    return response


def _told(database: Database, export_id: UUID, wanted: Wanted, parts: Generator[tuple[bytes, int]]) -> Iterator[bytes]:
    """The text, noted as complete when all of it was handed to the server to be sent, and else as broken."""
    sum_, items, noted, state = hashlib.sha256(), 0, time.monotonic(), "broken"
    try:
        with closing(parts):
            for text, count in parts:
                sum_.update(text)
                items += count
                # Once for an empty one too, of which there may be many.
                for start in range(0, len(text) or 1, SENT_AT_ONCE):
                    if text:
                        yield text[start : start + SENT_AT_ONCE]
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


def _parts(database: Database, wanted: Wanted, last: int) -> Generator[tuple[bytes, int]]:
    """What is sent, piece by piece, each with how many items are in it."""
    with closing(ranges(database, wanted, 0, last)) as found:
        if wanted.format is Format.PARQUET:
            yield from parquet(found, wanted.columns)
        else:
            yield head(wanted), 0
            yield from ((part.text, part.items) for part in found)
