"""Which records of a batch must be stored: the decision that keeps an unchanged source free of writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.records import Sifted

if TYPE_CHECKING:
    from etl.records import Known, RawRecord


def sift(records: list[RawRecord], known: Known) -> Sifted:
    """Leave out the records whose id has, everywhere in this batch, the content that is stored already.

    An id with any occurrence that differs is kept with all its occurrences, because the last one has to win.

    Args:
        records: the batch, in source order.
        known: what is stored, for keys with a single content in the batch.
    """
    served, quarantined, written = known.served, known.rejected, known.written
    if not served and not quarantined:
        return Sifted(records)
    kept: list[RawRecord] = []
    seen: set[str | bytes] = set()
    unchanged = duplicate = rejected = 0
    for record in records:
        key = record.key
        if key not in served and key not in quarantined:
            kept.append(record)
        elif key in seen or key in written:
            duplicate += 1
        elif key in quarantined:
            rejected += 1
        else:
            unchanged += 1
        seen.add(key)
    return Sifted(kept, unchanged, duplicate, rejected)


def single_valued(records: list[RawRecord]) -> dict[str | bytes, RawRecord]:
    """The records whose key has one content throughout the batch: the candidates for `unchanged`."""
    first = {record.key: record for record in records}
    if len(first) == len(records):
        return first
    first.clear()
    varied: set[str | bytes] = set()
    for record in records:
        known = first.setdefault(record.key, record)
        if known.content_hash != record.content_hash:
            varied.add(record.key)
    return {key: record for key, record in first.items() if key not in varied}
