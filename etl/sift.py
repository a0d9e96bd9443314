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
    if not known.served and not known.rejected:
        return Sifted(records)
    kept: list[RawRecord] = []
    counts = {"unchanged": 0, "duplicate": 0, "rejected": 0}
    seen: set[str | bytes] = set()
    for record in records:
        key = record.key
        if key not in known.served and key not in known.rejected:
            kept.append(record)
        elif key in seen or key in known.written:
            counts["duplicate"] += 1
        else:
            counts["rejected" if key in known.rejected else "unchanged"] += 1
        seen.add(key)
    return Sifted(kept, **counts)


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
