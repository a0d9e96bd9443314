"""Ranges of the past that are fetched from a source, window by window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from etl.declare.duration import seconds
from etl.declare.model import interval_of
from etl.declare.source import ApiSource, CsvSource
from etl.errors import NoBackfillError

if TYPE_CHECKING:
    from etl.declare.source import AnySource

# Backfills that go on at once, over all sources.
AT_ONCE = 2
# Windows of one backfill.
MOST_WINDOWS = 10_000


class Existing(StrEnum):
    """What becomes of a record whose id is there already: it is loaded as any other, or left alone."""

    UPDATE = "update"
    KEEP = "keep"


@dataclass(frozen=True)
class Window:
    """A part of a span: the time of its start, and that of its end, which is left out."""

    start: datetime
    end: datetime


class Span(msgspec.Struct, frozen=True):
    """A range of the past, in windows of so many `seconds`; `windows` is how many those are."""

    start: datetime
    end: datetime
    seconds: float
    windows: int
    existing: Existing = Existing.UPDATE

    def window(self, number: int) -> Window:
        """The window of this number, from 0 on."""
        start = self.start + timedelta(seconds=number * self.seconds)
        return Window(start, min(start + timedelta(seconds=self.seconds), self.end))


@dataclass(frozen=True)
class Plan:
    """What a backfill of a source comes to: pages of a window at most, and seconds between two requests at least."""

    source_name: str
    span: Span
    max_pages: int
    interval: float


def plan_of(source: AnySource, start: datetime, end: datetime, window: str | None, existing: Existing) -> Plan:
    """The backfill between two times, in windows as they are given or else declared.

    Raises:
        NoBackfillError: the source declares none, or the windows are too short or too many.
    """
    declared = source.backfill if isinstance(source, ApiSource | CsvSource) else None
    if declared is None:
        raise NoBackfillError(
            f"the source {source.name!r} declares no `backfill`: how a range of its past is asked for"
        )
    length = seconds(window or declared.window)
    if length < 1:
        raise NoBackfillError("`window`: at least 1s")
    windows = math.ceil((end - start).total_seconds() / length)
    if windows > MOST_WINDOWS:
        raise NoBackfillError(f"`window`: {windows} windows are more than {MOST_WINDOWS}; ask for longer ones")
    pages = getattr(source.paginate, "max_pages", 1) if isinstance(source, ApiSource) else 1
    return Plan(source.name, Span(start, end, length, windows, existing), pages, interval_of(source.rate))
