"""Reads the times of one source."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from etl.times.digits import are_digits, read_digits
from etl.times.grammar import read_date
from etl.times.zones import named

if TYPE_CHECKING:
    from collections.abc import Mapping
    from zoneinfo import ZoneInfo

# No time is written in more characters.
_LONGEST = 120

_SPACES = re.compile(r"\s+")
# Dates of eight digits and of a week, and times without colons, as ISO 8601 has them: what else it has is in the
# grammar. Python's own reader takes more, and drops digits.
_ISO = re.compile(
    r"(?:\d{8}|\d{4}-?W\d{2}-?\d|\d{4}-\d{2}-\d{2})"
    r"(?:T(?:\d{2}|\d{4}|(?:\d{6}|\d{2}:\d{2}:\d{2})(?:[.,]\d+)?|\d{2}:\d{2})(?:Z|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII | re.IGNORECASE,
)
# After a date: nothing, hours, or hours and minutes. Parts of a minute are no seconds.
_IS_PLAIN = re.compile(r"$|[T ]\d{2}(?:$|:\d{2}(?![.,\d]))|T\d{2}[Z+-]")
_NUMERIC = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})\b")
_MONTHS_OF_A_YEAR = 12


@dataclass(frozen=True)
class Moment:
    """Reads points in time by the rules of docs/sources.md.

    `formats` are those of `strptime` that the source names, and win; `names` are zones by their abbreviation.
    """

    zone: ZoneInfo
    formats: tuple[str, ...] = ()
    names: Mapping[str, ZoneInfo] = field(default_factory=dict)

    def __call__(self, value: Any) -> datetime | None:
        """An aware datetime in UTC, None for an absent value; a naive time is one of the source's zone.

        Raises ValueError for what has no meaning, or several.
        """
        if value is None:
            return None
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
            written = format(value, "f") if isinstance(value, Decimal) else str(value)
            return self._declared(written) or _digits(written)
        raise ValueError("expected a time, found " + _kind(value))

    def _text(self, value: str) -> datetime | None:
        written = value.strip()
        if not written:
            return None
        if self.formats and (declared := self._declared(written)):
            return declared
        if written[4:5] == written[7:8] == "-" and written[10:11] in {"T", " ", ""} and _IS_PLAIN.match(written, 10):
            # As most times are written.
            with contextlib.suppress(ValueError):
                return self.settled(datetime.fromisoformat(written))
        return self.settled(self._any_form(_SPACES.sub(" ", written)))

    def _any_form(self, written: str) -> datetime:
        if len(written) > _LONGEST:
            raise ValueError(f"a time longer than {_LONGEST} characters")
        if _ISO.fullmatch(written):
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(written.upper())
        if are_digits(written):
            return read_digits(written)
        moment = read_date(written.replace("\N{MINUS SIGN}", "-"), self.names)
        if moment is None:
            raise ValueError(_advice(written))
        return moment

    def _declared(self, written: str) -> datetime | None:
        """By the first format of the source's that fits."""
        for pattern in self.formats:
            try:
                return self.settled(self.by(pattern, written))
            except ValueError:
                continue
        return None

    def by(self, pattern: str, written: str) -> datetime:
        """By one format, as it is written; ValueError if it does not fit.

        Digits without separators fit only as the format writes them: strptime takes 2025111 for January as well.
        """
        zone = None
        if pattern.endswith("%Z"):
            # strptime reads but a few names of zones, and forgets them.
            pattern, (written, _, name) = pattern.removesuffix("%Z").rstrip(), written.rpartition(" ")
            zone = named(name, self.names)
        moment = datetime.strptime(written, pattern)  # noqa: DTZ007 -- settled by who calls
        if written.isdigit() and moment.strftime(pattern) != written:
            raise ValueError("other digits than the format writes")
        return moment.replace(tzinfo=zone) if zone else moment

    def settled(self, moment: datetime) -> datetime:
        """In UTC; a naive time is one of the source's zone."""
        if moment.tzinfo is UTC:
            return moment
        if moment.tzinfo is None and self.zone.key == "UTC":
            return moment.replace(tzinfo=UTC)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=self.zone)
        try:
            return aware.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("time out of range") from error


def _digits(written: str) -> datetime:
    if not are_digits(written):
        raise ValueError("expected a time, found a number")
    return read_digits(written)


def _advice(written: str) -> str:
    """What to declare for a text that is not read."""
    otherwise = "or the text in `nulls` if it means that there is no time"
    numeric = _NUMERIC.match(written)
    if numeric is None:
        return f'not a time such as 2025-12-31T10:00:00Z; write its format in `dates`, such as "%d.%m.%Y", {otherwise}'
    first, between, second, year = numeric.groups()
    day = between.join(("%d", "%m", "%Y" if len(year) > 2 else "%y"))
    month = between.join(("%m", "%d", "%Y" if len(year) > 2 else "%y"))
    fits = [form for form, number in ((day, second), (month, first)) if int(number) <= _MONTHS_OF_A_YEAR]
    clock = " ".join(_clock(written[numeric.end() :]))
    shown = " or ".join(f'["{(form + " " + clock).strip()}"]' for form in fits)
    return f"day and month may stand in either order; declare `dates: {shown}`, {otherwise}" if fits else otherwise


def _clock(rest: str) -> list[str]:
    """The format of a time after a date."""
    if not (found := re.search(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?", rest)):
        return []
    seconds = ":%S" if found[1] else ""
    fraction = ".%f" if found[2] else ""
    return [("%I:%M" if found[3] else "%H:%M") + seconds + fraction, *(["%p"] if found[3] else [])]


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", bool: "a boolean"}.get(type(value), "a " + type(value).__name__)
