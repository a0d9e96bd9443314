"""Which stored records are driven again through the mapping of today."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from etl.records import Cursor

# Rows that are looked at in one step, in which there may be none that is meant.
MOST_WALKED = 20_000
# Records of a batch, and the bytes that they take where they are stored, perhaps compressed.
MOST_RECORDS = 5_000
MOST_BYTES = 4 * 1024 * 1024
# While a run goes on that began with an older mapping, a replay waits: seconds between two looks.
LOOK_SECONDS = 5.0
# How long one slice may last: seconds.
SLICE_SECONDS = 5.0


class CaseFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Open cases of a source: these, or those with this first broken rule."""

    ids: list[int] | None = None
    field: str | None = None
    rule: str | None = None


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """The stored records of a source: all, those stored in a span of time or by one run, or those in open cases.

    `until` is the first time that is left out. Of all these, about one in `every`.
    """

    since: datetime | None = None
    until: datetime | None = None
    run_id: UUID | None = None
    cases: CaseFilter | None = None
    every: int | None = None


EVERYTHING = Scope()


class RawCursor(Cursor, frozen=True):
    """The last raw id that was looked at; and up to when rows are driven, which is known once it begins."""

    after: int = 0
    until: datetime | None = None
