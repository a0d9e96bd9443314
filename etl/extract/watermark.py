"""How far an incremental source was read: the highest value of a field, as a time or a number, never as text."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from etl.declare.duration import duration
from etl.declare.paths import path
from etl.declare.source import SINCE
from etl.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta

    from etl.declare.source import Incremental
    from etl.http.target import PreparedRequest
    from etl.records import Record
    from etl.times import Moment

# Numbers between these are taken for seconds or milliseconds since 1970: 2001 to 2100.
_EPOCH_FROM, _EPOCH_TO = 10**9, 41 * 10**8
# No counter goes as far: what lies above was never one.
_LARGEST = Decimal(2**63)

_DECIMALS = re.compile(r":\d{2}\.(\d{1,6})")
_NUMBER = re.compile(r"[+-]?\d{1,1000}(\.\d{0,1000})?([eE][+-]?\d{1,4})?")


class Kind(StrEnum):
    """What the values of a field are."""

    TIME = "time"
    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    NUMBER = "number"


@dataclass(frozen=True)
class Mark:
    """A cursor value: as it can be compared (a time by its seconds since 1970), and as the source wrote it."""

    number: Decimal
    written: str
    kind: Kind


@dataclass
class Highest:
    """The highest of many values up to a limit, and what lies above it."""

    limit: Decimal
    best: Mark | None = None
    above: int = 0
    sample: str = ""

    def add(self, mark: Mark) -> None:
        """Take one in."""
        if mark.number > self.limit:
            self.above, self.sample = self.above + 1, mark.written[:50]
        elif self.best is None or mark.number > self.best.number:
            self.best = mark


class Tally:
    """What the values of a page come to, whichever kind the field turns out to be."""

    def __init__(self, latest: datetime) -> None:
        seconds = Decimal(latest.timestamp())
        limits = {Kind.TIME: seconds, Kind.SECONDS: seconds, Kind.MILLISECONDS: seconds * 1000, Kind.NUMBER: _LARGEST}
        self.highest = {kind: Highest(limit) for kind, limit in limits.items()}
        self.odd: list[str] = []
        self._kinds = Counter[Kind]()
        self._samples: dict[Kind, str] = {}
        self._odd = 0

    def add(self, mark: Mark) -> None:
        """Take a value in. Numbers are compared with one another, times with times."""
        self._kinds[mark.kind] += 1
        self._samples.setdefault(mark.kind, mark.written[:50])
        for kind, highest in self.highest.items():
            if (kind is Kind.TIME) == (mark.kind is Kind.TIME):
                highest.add(mark)

    def add_odd(self, value: object) -> None:
        """Take in what is neither a time nor a number."""
        self._odd += 1
        self.odd = self.odd or [str(value)[:50]]

    def commonest(self) -> Kind | None:
        """The kind of most values."""
        return self._kinds.most_common(1)[0][0] if self._kinds else None

    def incomparable(self, kind: Kind) -> tuple[int, str]:
        """How many values cannot be compared with those of a kind, and one of them."""
        others = [other for other in self._kinds if (other is Kind.TIME) != (kind is Kind.TIME)]
        samples = [*self.odd, *(self._samples[other] for other in others)]
        return self._odd + sum(self._kinds[other] for other in others), samples[0] if samples else ""


@dataclass(frozen=True)
class Since:
    """From where a source is asked: a value, None for the start, and the parameter that takes it.

    Without a parameter it takes the place of `{since}`; where there is no value what holds that is left out.
    """

    value: str | None = None
    param: str | None = None

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """What is added to the query."""
        return [] if self.param is None or self.value is None else [(self.param, self.value)]

    def into(self, target: PreparedRequest) -> PreparedRequest:
        """The request with the value in the place of `{since}`."""
        if self.param is not None:
            return target
        params = tuple((name, filled) for name, text in target.params if (filled := self._filled(text)) is not None)
        body = None if target.body is None else self._filled(target.body)
        return replace(target, params=params, body=body)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str) and SINCE in value:
            return None if self.value is None else value.replace(SINCE, self.value)
        if isinstance(value, dict):
            found = {key: self._filled(inner) for key, inner in value.items()}
            return {key: inner for key, inner in found.items() if inner is not None or value[key] is None}
        if isinstance(value, list):
            return [filled for inner in value if (filled := self._filled(inner)) is not None or inner is None]
        return value


class Watermark:
    """The rules of one incremental source."""

    def __init__(
        self, incremental: Incremental, moment: Moment, now: datetime, warn: Callable[[str, str], None]
    ) -> None:
        """`moment` reads the source's times; `warn` takes a code and a message."""
        self._incremental = incremental
        self._field = path(incremental.field)
        self._moment = moment
        self._latest = now + duration(incremental.ahead)
        self._warn = warn

    def highest(self, records: Iterable[Record], before: str | None) -> str | None:
        """The highest value of these records and of what was known before.

        What cannot be compared with the others, or lies too far ahead, would stop the source for good: it is left out,
        with a warning.

        Raises:
            FormatError: no value is a time or a number, or one is missing where it must not be.
        """
        known, tally = self._known(before), self._tally(records)
        kind = known.kind if known else tally.commonest()
        if kind is None:
            if tally.odd:
                message = f"the cursor value {tally.odd[0]!r} is neither a time nor a number"
                raise FormatError(message, code="bad_cursor")
            return None
        self._tell(kind, tally)
        found = tally.highest[kind]
        if known:
            found.add(known)
        return None if found.best is None else found.best.written

    def _tally(self, records: Iterable[Record]) -> Tally:
        tally = Tally(self._latest)
        for value in self._values(records):
            mark = self._mark(value)
            if mark is None:
                tally.add_odd(value)
            else:
                tally.add(mark)
        return tally

    def _values(self, records: Iterable[Record]) -> Iterator[object]:
        for record in records:
            if not isinstance(record, dict):
                continue
            value = self._field.search(record)
            if not _is_missing(value):
                yield value
            elif self._incremental.missing == "fail":
                raise FormatError(f"a record has no `{self._incremental.field}`", code="bad_cursor")

    def _tell(self, kind: Kind, tally: Tally) -> None:
        count, sample = tally.incomparable(kind)
        field = f"`incremental.field` ({self._incremental.field})"
        if count:
            others = f"values that cannot be compared with the other ones, such as {sample!r}"
            self._warn("cursor_mixed", f"{field}: {count} {others}; the watermark leaves them out")
        if above := tally.highest[kind].above:
            ahead = f"lie more than {self._incremental.ahead} (`incremental.ahead`) ahead of now"
            what = "are no counters" if kind is Kind.NUMBER else ahead
            sample = tally.highest[kind].sample
            self._warn(
                "cursor_ahead", f"{field}: {above} values {what}, such as {sample!r}; the watermark leaves them out"
            )

    def _known(self, written: str | None) -> Mark | None:
        """A watermark of before, unless it lies too far ahead to be believed."""
        mark = None if written is None else self._mark(written)
        return mark if mark and mark.number <= Tally(self._latest).highest[mark.kind].limit else None

    def _mark(self, value: object) -> Mark | None:
        """A value as it can be compared, None if it cannot be."""
        written = str(value).strip()
        if _NUMBER.fullmatch(written) and not self._pattern(written):
            return Mark(Decimal(written), written, _kind_of(Decimal(written)))
        try:
            moment = self._moment(written)
        except ValueError:
            return None
        return None if moment is None else Mark(Decimal(moment.timestamp()), written, Kind.TIME)

    def wanted(self, record: Record) -> bool:
        """False for a record that is to be left out because it has no value."""
        if self._incremental.missing != "exclude" or not isinstance(record, dict):
            return True
        return not _is_missing(self._field.search(record))

    def since(self, since: str | None) -> Since:
        """What is asked for: the watermark less the lookback, written as the source writes it."""
        mark = self._known(since)
        value = self._incremental.initial if mark is None else self._less_lookback(mark)
        return Since(value, self._incremental.param)

    def _less_lookback(self, mark: Mark) -> str:
        lookback = duration(self._incremental.lookback)
        if not lookback or mark.kind is Kind.NUMBER:
            return mark.written
        if mark.kind is Kind.TIME:
            return self._earlier(mark.written, lookback)
        scale = 1000 if mark.kind is Kind.MILLISECONDS else 1
        return str(mark.number - Decimal(lookback.total_seconds()) * scale)

    def _earlier(self, written: str, lookback: timedelta) -> str:
        """A time in the form it was written in: in a format of the source's, without a zone, or in UTC."""
        moment = self._moment(written)
        assert moment is not None
        earlier, zone = moment - lookback, self._moment.zone
        if pattern := self._pattern(written):
            written_in = self._moment.by(pattern, written).tzinfo
            return earlier.astimezone(written_in or zone).strftime(pattern)
        if _has_no_zone(written):
            return _like(written, earlier.astimezone(zone).replace(tzinfo=None))
        return _like(written, earlier).replace("+00:00", "Z")

    def _pattern(self, written: str) -> str | None:
        """The format of the source's that a time is written in."""
        for pattern in self._moment.formats:
            with contextlib.suppress(ValueError):
                self._moment.by(pattern, written)
                return pattern
        return None


def _is_missing(value: object) -> bool:
    return value is None or value == "" or isinstance(value, (dict, list, bool))


def _kind_of(number: Decimal) -> Kind:
    if _EPOCH_FROM <= number < _EPOCH_TO:
        return Kind.SECONDS
    return Kind.MILLISECONDS if _EPOCH_FROM * 1000 <= number < _EPOCH_TO * 1000 else Kind.NUMBER


def _like(written: str, moment: datetime) -> str:
    """ISO 8601 with as many decimals as another time has, and a space between date and time where that has one."""
    between = " " if written[10:11] == " " else "T"
    decimals = _DECIMALS.search(written)
    if decimals is None:
        return moment.isoformat(between, "seconds")
    shown = moment.isoformat(between, "microseconds")
    return shown.replace(f".{moment.microsecond:06}", f".{moment.microsecond:06}"[: len(decimals[1]) + 1])


def _has_no_zone(written: str) -> bool:
    try:
        return datetime.fromisoformat(written).tzinfo is None
    except ValueError:
        return False
