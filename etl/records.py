"""The shapes data has on its way from a source to an item, one per phase."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, Self

import msgspec

from etl.payload import digest


class BadRecord(msgspec.Struct, frozen=True):
    """A record that cannot be kept as JSON: its bytes, and why.

    `hash` is that of all its bytes, where `raw` has only some of them.
    """

    raw: bytes
    field: str
    rule: str
    message: str
    hash: bytes | None = None

    @property
    def content_hash(self) -> bytes:
        """What tells it from others."""
        return self.hash or digest(self.raw)


class Records(Protocol):
    """The records of a page; a large page reads them as they are asked for."""

    def __len__(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[dict[str, Any] | BadRecord]:
        """One after the other, the same each time."""


class Validator(msgspec.Struct, frozen=True, omit_defaults=True):
    """What tells whether an answer has changed: the server's own marks, byte for byte, and the hash of the body.

    They are good for one `request` only, known by its digest.
    """

    request: str
    etag: str | None = None
    last_modified: str | None = None
    digest: str = ""


class FileMark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was read of a file: the hash of its first `offset` bytes, in which there are `row` rows of data.

    `appending` is set in mode append, where the next run goes on at `offset`; how the file is written is told by its
    first `seen` bytes, so that it stays the same while the file grows.
    """

    digest: str
    offset: int
    row: int = 0
    appending: bool = False
    seen: int = 0


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run leaves to the next one, beside the watermark."""

    validator: Validator | None = None
    files: dict[str, FileMark] = {}


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the next run starts. `config` and `mapping` name the settings and the mapping that it is good for."""

    kind: str = "none"
    version: int = 1
    config: str = ""
    mapping: int = 0
    watermark: str | None = None
    kept: Kept = Kept()


Record = dict[str, Any] | BadRecord


class Cursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A place in a source; each extractor has its own kind. A position keeps its fields as they are."""

    @classmethod
    def of(cls, position: Position) -> Self | None:
        """The place where a position goes on, None for the start."""
        return None if position.cursor is None else msgspec.convert(position.cursor, cls)


class Page(msgspec.Struct, frozen=True):
    """What one request, or one stretch of a file, gave: records in source order.

    `cursor` leads to this page again, `following` to the next one and is None at the end. `validator` tells whether
    the page, fetched again, is still the same. `watermark` is the highest cursor value seen, for incremental sources;
    `kept` what the next run should know once everything up to here is loaded; `skipped` counts what was left out of it.
    `known` says that it has no records because it is what it was when it was read before.
    """

    cursor: Cursor
    records: Records
    following: Cursor | None
    validator: str | None = None
    size: int = 0
    watermark: str | None = None
    kept: Kept | None = None
    skipped: int = 0
    known: bool = False


class Position(msgspec.Struct, frozen=True):
    """Where extraction goes on: a page, the records of it that are done, and whether it is still that page.

    `cursor` is the JSON of a `Cursor`: slices of one run may be read by different versions.
    `tries` counts the calls that failed on this page so far, so that a wait across slices does not reset them.
    `config` is the fingerprint of the source's settings the cursor belongs to, `mapping` the version of the mapping at
    the start; `kept` is that of the last whole page. `known` says that a part was left out because it is what it was
    when it was read before.
    """

    cursor: dict[str, Any] | None = None
    done: int = 0
    validator: str | None = None
    tries: int = 0
    config: str = ""
    mapping: int = 0
    watermark: str | None = None
    finished: bool = False
    kept: Kept | None = None
    known: bool = False


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
    """A slice of a run, ready to be stored in one transaction, with the position after it.

    `skipped` is how many rows it has that are no records.
    """

    records: list[RawRecord]
    rejected: list[BadRecord]
    position: Position
    pages: int
    size: int
    skipped: int = 0

    @property
    def extracted(self) -> int:
        """How many records the source gave."""
        return len(self.records) + len(self.rejected)


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A row of raw_data as normalise takes it. `ingested_at`, half of the row's key, is as PostgreSQL writes it."""

    raw_id: int
    ingested_at: str
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


class Fault(msgspec.Struct, frozen=True):
    """A field of a record that breaks a rule, with its value as far as it is shown."""

    field: str
    rule: str
    value: str | None
    message: str


class Reject(msgspec.Struct, frozen=True):
    """A stored record that cannot become an item, and all that is wrong with it.

    `content_hash` is that of the whole payload, fields that are ignored elsewhere included.
    """

    record: StoredRecord
    content_hash: bytes
    faults: list[Fault]


class Sight(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often a field was seen in a sample, by the kind of its value; one value, and the path that leads to it."""

    kinds: dict[str, float] = {}
    sample: str | None = None
    path: str | None = None


class Nulled(msgspec.Struct, frozen=True):
    """Values of a field that were left out for the same rule: how many, and the first."""

    field: str
    rule: str
    count: int
    sample: str | None


class Observed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What new and changed records look like: how many there were, and what was seen of those sampled, and their items.

    `keys` are the fields of the records, `items` those of the items. `forms` has a value of each number field whose
    values may be others if their point separated thousands, "" where they may not. `nulled` counts the values that were
    left out because they broke a rule, by field and rule, with the first of them.
    """

    records: int = 0
    sampled: int = 0
    sampled_items: int = 0
    keys: dict[str, Sight] = {}
    items: dict[str, Sight] = {}
    forms: dict[str, str] = {}
    nulled: dict[str, Nulled] = {}


class Mapped(msgspec.Struct, frozen=True):
    """What became of stored records: items, rejects, rules for which items lost a value, and what they look like."""

    staged: list[StagedItem]
    rejects: list[Reject]
    observed: Observed | None = None
    nulled: list[Fault] = []


class Counts(msgspec.Struct, frozen=True):
    """What became of the records of a run or a batch.

    Of the `failed`, `failed_again` were in quarantine already, as they are. Of the `updated`, `corrected` say what they
    said before, and are read otherwise.
    """

    extracted: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicate: int = 0
    failed: int = 0
    failed_again: int = 0
    corrected: int = 0

    @property
    def new(self) -> int:
        """How many were not known as they are."""
        return self.extracted - self.unchanged - self.failed_again

    @property
    def newly_failed(self) -> int:
        """How many went to quarantine."""
        return self.failed - self.failed_again

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
