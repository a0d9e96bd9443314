"""How far an incremental source was read: the highest value of a field, as a time or a number, never as text."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from etl.declare.duration import duration
from etl.declare.paths import path
from etl.errors import FormatError
from etl.mapping.convert import EPOCH_MILLISECONDS, Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from etl.declare.source import Incremental
    from etl.records import Record

# A number above this is taken for epoch seconds where time is subtracted from it.
_EPOCH_FROM = 10**9

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


class Watermark:
    """The rules of one incremental source."""

    def __init__(self, incremental: Incremental) -> None:
        self._incremental = incremental
        self._field = path(incremental.field)

    def highest(self, records: Iterable[Record], before: str | None) -> str | None:
        """The highest value of these records and of what was known before.

        Raises:
            FormatError: a value is neither a time nor a number, or is missing where it must not be.
        """
        best = None if before is None else _comparable(before)
        for value in self._values(records):
            if best is None or value > best:
                best = value
        return best and best[1]

    def _values(self, records: Iterable[Record]) -> Iterator[tuple[float, str]]:
        for record in records:
            if not isinstance(record, dict):
                continue
            value = _comparable(self._field.search(record))
            if value is not None:
                yield value
            elif self._incremental.missing == "fail":
                raise FormatError(f"a record has no `{self._incremental.field}`", code="bad_cursor")

    def wanted(self, record: Record) -> bool:
        """False for a record that is to be left out because it has no value."""
        if self._incremental.missing != "exclude" or not isinstance(record, dict):
            return True
        return _comparable(self._field.search(record)) is not None

    def parameter(self, since: str | None) -> list[tuple[str, str]]:
        """What goes into the query: the watermark less the lookback."""
        if not since:
            return []
        lookback = duration(self._incremental.lookback)
        moment = _moment(since)
        if moment is not None and lookback:
            since = (moment - lookback).isoformat().replace("+00:00", "Z")
        elif lookback and float(since) > _EPOCH_FROM:
            scale = 1000 if float(since) > EPOCH_MILLISECONDS else 1
            since = str(Decimal(since) - Decimal(lookback.total_seconds()) * scale)
        return [(self._incremental.param, since)]


def _comparable(value: Any) -> tuple[float, str] | None:
    if value is None or value == "" or isinstance(value, (dict, list, bool)):
        return None
    moment = _moment(str(value))
    if moment is not None:
        return moment.timestamp(), str(value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise FormatError(f"the cursor value {str(value)[:50]!r} is neither a time nor a number", code="bad_cursor")
    return number, str(value)


def _moment(value: str) -> datetime | None:
    if _NUMBER.fullmatch(value):
        return None
    try:
        return Moment(UTC)(value)  # type: ignore[arg-type]
    except ValueError:
        return None
