"""Change detection: which records of a batch must be stored. It keeps an unchanged source free of writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from etl.payload import digest

if TYPE_CHECKING:
    from collections.abc import Collection

    from etl.records import BadRecord, RawBatch, RawRecord

    Key = str | bytes


class OpenCase(NamedTuple):
    """A record in quarantine: its content, its id if it has one, and whether this run put it there.

    `is_current` says that it was judged under the present mapping, so that the same content need not be again;
    `is_discarded` that somebody has put it away, which holds for as long as it says the same.
    """

    content_hash: bytes
    external_id: str | None
    written: bool
    is_current: bool = True
    is_discarded: bool = False


class KnownContent(msgspec.Struct, frozen=True):
    """What is stored under the present mapping: the content hash of each served id, and the open cases.

    `written` are the served ids that this run itself has written, which makes a repeat a duplicate.
    """

    served: dict[str, bytes] = {}
    cases: list[OpenCase] = []
    written: frozenset[str] = frozenset()


class Changes(msgspec.Struct, frozen=True):
    """What of a batch must be stored: `records`, and `rejected` that are new to quarantine. The rest is counted.

    `failed_again` counts those that are in quarantine already, as they are, or erased; of them `discarded` were put
    away by somebody.
    `reverted` are ids of which a later record is in quarantine, and which are now as they are served; `identified` the
    hashes of records in quarantine that had no id, and now have one.
    """

    records: list[RawRecord]
    rejected: list[BadRecord]
    unchanged: int = 0
    duplicate: int = 0
    failed_again: int = 0
    discarded: int = 0
    reverted: tuple[str, ...] = ()
    identified: tuple[bytes, ...] = ()


class InFlightIds:
    """The ids in a run's open batches, by the batch's number: stored, and not loaded yet.

    What such an id says now is about to change, so a record of it is never `unchanged`.
    """

    def __init__(self, batches: dict[int, frozenset[str]]) -> None:
        """`batches` are those that are open now; at most as many as there may be."""
        self._batches = batches

    def stored(self, number: int, batch: RawBatch, open_batches: Collection[int]) -> None:
        """A batch was stored. Those that are not among the open ones by now are forgotten."""
        self._batches[number] = frozenset(r.external_id for r in batch.records if r.external_id is not None)
        self._batches = {number: ids for number, ids in self._batches.items() if number in open_batches}

    def without(self, external_ids: list[str]) -> list[str]:
        """Those of the ids that are not in flight, in the same order."""
        met = set[str]().union(*(ids.intersection(external_ids) for ids in self._batches.values()))
        return [external_id for external_id in external_ids if external_id not in met] if met else external_ids


def without_erased(batch: RawBatch, erased: frozenset[str]) -> tuple[RawBatch, int]:
    """A batch without the records of erased ids, and how many those are."""
    if not erased:
        return batch, 0
    records = [record for record in batch.records if record.external_id not in erased]
    return replace(batch, records=records), len(batch.records) - len(records)


@dataclass(frozen=True)
class Candidates:
    """The records of a batch that may be unchanged, by key, and the ids that are worth looking up.

    A batch that is loaded meanwhile does no harm: its ids are in flight until the next batch is stored.
    """

    batch: RawBatch
    records: dict[Key, RawRecord]
    ids: list[str]
    # Whether the hash of a record leaves fields out.
    ignores: bool

    def all_hashes(self) -> set[bytes]:
        """What any record of the batch would have as the content hash of its case."""
        records = self.batch.records
        stored = {digest(record.payload) if self.ignores else record.content_hash for record in records}
        return stored | {bad.content_hash for bad in self.batch.rejected}

    def hashes(self) -> dict[bytes, Key]:
        """The keys by what an open case would have as its content hash.

        A reject is known by its whole payload: a field that is ignored elsewhere may be the one that was mended.
        """
        found: dict[bytes, Key] = {
            digest(record.payload) if self.ignores else record.content_hash: key for key, record in self.records.items()
        }
        return found | {
            content_hash: content_hash for content_hash in (bad.content_hash for bad in self.batch.rejected)
        }


def candidates(batch: RawBatch, in_flight: InFlightIds, *, ignores: bool) -> Candidates:
    """What of a batch has to be looked up."""
    records = single_valued(batch.records, whole=ignores)
    # In source order, which is mostly that of the index.
    ids = in_flight.without([r.external_id for r in records.values() if r.external_id is not None])
    return Candidates(batch, records, ids, ignores)


def changed_records(found: Candidates, known: KnownContent) -> Changes:
    """Leave out the records whose id has, everywhere in their batch, the content that is stored already.

    An id with any occurrence that differs is stored with all its occurrences, because the last one has to win.
    """
    records = found.records
    served = {key for key, content_hash in known.served.items() if records[key].content_hash == content_hash}
    cases = _cases_met(found, known.cases) if known.cases else {}
    identified = _identified(found, known.cases) if known.cases else ()
    if not served and not cases:
        return Changes(found.batch.records, found.batch.rejected, identified=identified)
    written = known.written & served | {key for key, ours in cases.items() if ours}
    rejected = [bad for bad in found.batch.rejected if bad.content_hash not in cases]
    changes = _counted(found.batch.records, rejected, frozenset(served), cases.keys() - served, written)
    reverted = {case.external_id for case in known.cases if case.external_id in served}
    discarded = _discarded(found, known.cases, cases.keys() - served)
    return replace(changes, reverted=tuple(sorted(filter(None, reverted))), identified=identified, discarded=discarded)


def _discarded(found: Candidates, cases: list[OpenCase], quarantined: set[Key]) -> int:
    """How many records of a batch were put away, each occurrence of what is unstorable included."""
    put_away = {case.content_hash for case in cases if case.is_discarded}
    if not put_away:
        return 0
    keys = found.hashes()
    records = {key for content_hash in put_away if (key := keys.get(content_hash)) in quarantined}
    bad = sum(one.content_hash in put_away for one in found.batch.rejected)
    return len(records - put_away) + bad


def _identified(found: Candidates, cases: list[OpenCase]) -> tuple[bytes, ...]:
    without_id = {case.content_hash for case in cases if case.external_id is None}
    if not without_id:
        return ()
    records = (record for record in found.batch.records if record.external_id is not None)
    hashes = {digest(record.payload) if found.ignores else record.content_hash for record in records}
    return tuple(sorted(without_id & hashes))


def _cases_met(found: Candidates, cases: list[OpenCase]) -> dict[Key, bool]:
    """The keys that are in quarantine with just this content, and whether this run put them there."""
    keys, settled = found.hashes(), set(found.ids)
    met = ((keys[case.content_hash], case) for case in cases if case.is_current and case.content_hash in keys)
    # Of an id in flight nobody knows yet what it will say.
    met = ((key, case) for key, case in met if isinstance(key, bytes) or key in settled)
    return {key: case.written for key, case in met if case.external_id is None or case.external_id == key}


def _counted(
    records: list[RawRecord],
    rejected: list[BadRecord],
    served: frozenset[Key],
    quarantined: set[Key],
    written: set[Key] | frozenset[Key],
) -> Changes:
    stored: list[RawRecord] = []
    seen: set[Key] = set()
    unchanged = duplicate = failed_again = 0
    for record in records:
        key = record.key
        if key not in served and key not in quarantined:
            stored.append(record)
        elif key in seen or key in written:
            duplicate += 1
        elif key in quarantined:
            failed_again += 1
        else:
            unchanged += 1
        seen.add(key)
    return Changes(stored, rejected, unchanged, duplicate, failed_again)


def single_valued(records: list[RawRecord], *, whole: bool = False) -> dict[Key, RawRecord]:
    """The records whose key has one content throughout the batch: the candidates for `unchanged`.

    The `whole` payload is compared where fields are ignored: one that is may be what was mended.
    """
    first: dict[Key, RawRecord] = {record.key: record for record in records}
    if len(first) == len(records):
        return first
    first.clear()
    varied: set[Key] = set()
    for record in records:
        known = first.setdefault(record.key, record)
        if known.content_hash != record.content_hash or (whole and known.payload != record.payload):
            varied.add(record.key)
    return {key: record for key, record in first.items() if key not in varied}
