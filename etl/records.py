"""The shapes data has on its way from a source to an item, one per phase."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

Cursor = dict[str, Any]


class BadRecord(msgspec.Struct, frozen=True):
    """A record that cannot be kept as JSON: its bytes, and why."""

    raw: bytes
    field: str
    rule: str
    message: str


class Page(msgspec.Struct, frozen=True):
    """What one request, or one stretch of a file, gave: records in source order.

    `cursor` leads to this page again, `following` to the next one and is None at the end. `validator` tells whether
    the page, fetched again, is still the same. `watermark` is the highest cursor value seen, for incremental sources.
    """

    cursor: Cursor
    records: list[dict[str, Any] | BadRecord]
    following: Cursor | None
    validator: str | None = None
    size: int = 0
    watermark: str | None = None


class Position(msgspec.Struct, frozen=True):
    """Where extraction goes on: a page, the records of it that are done, and whether it is still that page.

    `tries` counts the calls that failed on this page so far, so that a wait across slices does not reset them.
    `config` is the fingerprint of the source's settings the cursor belongs to.
    """

    cursor: Cursor | None = None
    done: int = 0
    validator: str | None = None
    tries: int = 0
    config: str = ""
    watermark: str | None = None
    finished: bool = False


class RawRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as it will be stored: its identity (None if it has none), canonical JSON and content hash."""

    external_id: str | None
    payload: bytes
    content_hash: bytes

    @property
    def key(self) -> str | bytes:
        """What makes two records the same one; a record without an id is known by its content."""
        return self.content_hash if self.external_id is None else self.external_id


class RawBatch(msgspec.Struct, frozen=True):
    """A slice of a run, ready to be stored in one transaction, with the position after it."""

    records: list[RawRecord]
    rejected: list[BadRecord]
    position: Position
    pages: int
    size: int

    @property
    def extracted(self) -> int:
        """How many records the source gave."""
        return len(self.records) + len(self.rejected)


class Known(msgspec.Struct, frozen=True):
    """Of the keys of a batch: those served, or in open quarantine, with just this content and mapping.

    `written` are those among them that this run itself has stored, which makes a repeat a duplicate.
    """

    served: frozenset[str | bytes] = frozenset()
    rejected: frozenset[str | bytes] = frozenset()
    written: frozenset[str | bytes] = frozenset()


class Sifted(msgspec.Struct, frozen=True):
    """A batch after the comparison with what is known: what must be stored, and what need not be.

    `rejected` counts the records that are in quarantine already, as they are.
    """

    kept: list[RawRecord]
    unchanged: int = 0
    duplicate: int = 0
    rejected: int = 0


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A row of raw_data as normalise reads it."""

    raw_id: int
    ingested_at: datetime
    external_id: str | None
    content_hash: bytes
    payload: str


class Item(msgspec.Struct, frozen=True, gc=False):
    """A record in the one shape we serve."""

    title: str | None = None
    description: str | None = None
    category: str | None = None
    url: str | None = None
    image_url: str | None = None
    author: str | None = None
    amount: Decimal | None = None
    quantity: Decimal | None = None
    rating: Decimal | None = None
    tags: list[str] | None = None
    published_at: datetime | None = None
    metadata: dict[str, Any] = {}


class StagedItem(msgspec.Struct, frozen=True, gc=False):
    """An item with the stored record it came from."""

    record: StoredRecord
    item: Item


class Reject(msgspec.Struct, frozen=True):
    """A stored record that cannot become an item: the field, the rule it breaks and the value.

    `content_hash` is that of the whole payload, fields that are ignored elsewhere included.
    """

    record: StoredRecord
    content_hash: bytes
    field: str
    rule: str
    value: str | None
    message: str


class Counts(msgspec.Struct, frozen=True):
    """What became of the records of a run or a batch."""

    extracted: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicate: int = 0
    failed: int = 0

    @property
    def settled(self) -> int:
        """How many records have met their end."""
        return self.inserted + self.updated + self.unchanged + self.duplicate + self.failed

    @property
    def not_loaded(self) -> int:
        """How many have not."""
        return self.extracted - self.settled

    @property
    def loaded(self) -> int:
        """How many are served."""
        return self.inserted + self.updated + self.unchanged
