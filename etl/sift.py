"""Which records of a batch must be stored: the decision that keeps an unchanged source free of writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl.records import RawRecord, Sifted

if TYPE_CHECKING:
    from collections.abc import Collection


def sift(records: list[RawRecord], unchanged: Collection[str | bytes], written: Collection[str | bytes]) -> Sifted:
    """Leave out the records whose id has, everywhere in this batch, the content that is already served.

    An id with any occurrence that differs is kept with all its occurrences, because the last one has to win.

    Args:
        records: the batch, in source order.
        unchanged: keys whose stored content equals that of *every* record of that key in the batch.
        written: those of `unchanged` that this run itself has written before, which makes a repeat a duplicate.
    """
    kept: list[RawRecord] = []
    seen: set[str | bytes] = set()
    repeats = 0
    for record in records:
        key = record.key
        if key not in unchanged:
            kept.append(record)
        elif key in seen or key in written:
            repeats += 1
        seen.add(key)
    return Sifted(kept, len(records) - len(kept) - repeats, repeats)


def single_valued(records: list[RawRecord]) -> dict[str | bytes, RawRecord]:
    """The records whose key has one content throughout the batch: the candidates for `unchanged`."""
    first: dict[str | bytes, RawRecord] = {}
    varied: set[str | bytes] = set()
    for record in records:
        known = first.setdefault(record.key, record)
        if known.content_hash != record.content_hash:
            varied.add(record.key)
    return {key: record for key, record in first.items() if key not in varied}
