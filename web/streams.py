"""Events of a run as they happen, over an answer that stays open for a while (server-sent events)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Response, request

from db.queries.events import events_after
from db.queries.runs import get_run
from etl.errors import TooManyStreamsError
from etl.runs.outcome import ENDED
from web.errors import InvalidRequestError
from web.extensions import service
from web.requests import MAX_ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from sqlalchemy import Connection

    from db.session import Database

KIND = "text/event-stream"
# Each holds a thread of the eight that a process has.
AT_ONCE = 2
# After so long it ends, and the client comes back for what is next: seconds.
LONGEST = 60.0
# How often the database is asked, and how often a line goes out so that a proxy keeps the connection: seconds.
PAUSE = 1.0
SILENCE = 15.0
MOST_EVENTS = 500
# How long after an event was written it may be committed.
LATEST = timedelta(seconds=10)

_places = BoundedSemaphore(AT_ONCE)


class _Place:
    """One of the places, given back once."""

    def __init__(self) -> None:
        self._is_held = _places.acquire(blocking=False)
        if not self._is_held:
            raise TooManyStreamsError(f"{AT_ONCE} streams are open already; ask for events as JSON, or again later")

    def leave(self) -> None:
        """Let another have it."""
        if self._is_held:
            self._is_held = False
            _places.release()


def is_wanted() -> bool:
    """Whether the request asks for events as they happen."""
    return request.accept_mimetypes.best_match([KIND, "application/json"], default="application/json") == KIND


def last_seen() -> int:
    """The last event that the client has got.

    Raises:
        InvalidRequestError: it is none of ours.
    """
    given = request.headers.get("Last-Event-ID", "").strip() or "0"
    if not given.isdecimal() or not given.isascii() or len(given) > len(str(MAX_ID)) or int(given) > MAX_ID:
        raise InvalidRequestError("header", "Last-Event-ID", "expected the `id` of an event")
    return int(given)


def stream(run_id: UUID, after: int) -> Response:
    """The events of a run from one on, until it has ended or time is up.

    Raises:
        TooManyStreamsError: as many are open as may be.
    """
    place = _Place()
    answer = Response(_held(place, _events(service().database, run_id, after)), mimetype=KIND)
    # Also where nothing of it is ever sent.
    answer.call_on_close(place.leave)
    return answer


def _held(place: _Place, events: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from events
    finally:
        place.leave()


def _events(database: Database, run_id: UUID, after: int) -> Iterator[bytes]:
    ends, spoke = time.monotonic() + LONGEST, time.monotonic()
    # Ids are given when an event is written, and events are seen when that is committed: a lower one may come later.
    floor, sent = after, set[int]()
    yield b"retry: 1000\n\n"
    while True:
        is_over, events = database.read(_look, run_id, floor)
        found = [event for event in events if event["event_id"] not in sent]
        for event in found:
            yield _line(event)
        sent |= {event["event_id"] for event in found}
        floor = _settled(events, floor)
        sent = {number for number in sent if number > floor}
        if found or time.monotonic() - spoke > SILENCE:
            spoke = time.monotonic()
            yield b": here\n\n"
        if (is_over and len(events) < MOST_EVENTS) or time.monotonic() > ends:
            # Of a run that is over there is nothing to come back for.
            yield b"event: end\ndata: {}\n\n" if is_over else b""
            return
        if len(events) < MOST_EVENTS:
            time.sleep(PAUSE)


def _settled(events: list[dict[str, Any]], floor: int) -> int:
    """Up to which event none comes any more: all that are there were written a while ago, or a page is full."""
    if len(events) == MOST_EVENTS:
        return int(events[-1]["event_id"])
    old = datetime.now(UTC) - LATEST
    return max((event["event_id"] for event in events if event["at"] < old), default=floor)


def _look(connection: Connection, run_id: UUID, after: int) -> tuple[bool, list[dict[str, Any]]]:
    # First whether it is over: then all events are there.
    is_over = get_run(connection, run_id).status in ENDED
    return is_over, [row._asdict() for row in events_after(connection, run_id, after, MOST_EVENTS)]


def _line(event: dict[str, Any]) -> bytes:
    return b"id: %d\nevent: run\ndata: %s\n\n" % (event["event_id"], msgspec.json.encode(event))
