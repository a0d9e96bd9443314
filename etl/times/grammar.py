"""The forms of a date with its time that have one meaning."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from etl.times.zones import read_zone

if TYPE_CHECKING:
    from collections.abc import Mapping
    from re import Match
    from zoneinfo import ZoneInfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# A year of two digits, by RFC 2822.
_CENTURY = 50

_WEEKDAY = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?\.?,? ?)?"
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sep(?:t(?:ember)?)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR_FIRST = r"(?P<year>\d{4})(?P<between>[-/.])(?P<number>\d{1,2})(?P=between)(?P<day>\d{1,2})(?!\d)\.?"
_DAY_FIRST = rf"{_DAY}(?: of)?[ ./-]{{0,2}}{_MONTH}(?:, ?|[ /-])?(?P<year>\d{{4}}(?!\d)|\d{{2}}(?![\d:]))"
_MONTH_FIRST = rf"{_MONTH}[ /-]?{_DAY}(?:, ?|[ /-])(?P<year>\d{{4}})(?!\d)"
_NAMED_YEAR_FIRST = rf"(?P<year>\d{{4}})[ /-]?{_MONTH}[ /-]?{_DAY}(?!\d)"
_TIME = (
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,30}))?)?(?![\d:])"
    r"(?: ?(?P<half>[ap])\.?m\b\.?)?| ?(?P<half_of_hour>[ap])\.?m\b\.?)"
)
_BETWEEN = r"(?: ?T ?|[ :]|,? at |, ?)"
_ZONE = r"(?P<zone>.{0,80})"
_YEAR_LAST = rf"{_TIME}(?P<zone_within> [A-Za-z+-][\w/+:-]{{0,40}})? (?P<year>\d{{4}})(?!\d)"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE | re.ASCII)
    for form in (
        *(
            rf"{_WEEKDAY}{date}(?:{_BETWEEN}{_TIME})?{_ZONE}"
            for date in (_YEAR_FIRST, _DAY_FIRST, _MONTH_FIRST, _NAMED_YEAR_FIRST)
        ),
        # As C, the shell and Git write it.
        *(rf"{_WEEKDAY}{date} {_YEAR_LAST}{_ZONE}" for date in (rf"{_MONTH} {_DAY}", rf"{_DAY} {_MONTH}")),
        *(
            rf"{_TIME}(?P<zone_within> [A-Za-z]{{1,6}})??,? (?:on )?{_WEEKDAY}{date}{_ZONE}"
            for date in (_YEAR_FIRST, _DAY_FIRST, _MONTH_FIRST)
        ),
    )
)


def read_date(written: str, names: Mapping[str, ZoneInfo]) -> datetime | None:
    """A text as a date with its time, None if it has none of the forms; naive where it names no zone.

    Raises ValueError for what has a form but is none, such as the 31st of February, or names a zone that is not known.
    """
    wrong: ValueError | None = None
    for form in _FORMS:
        found = form.fullmatch(written)
        if found is None:
            continue
        try:
            return _moment(found, names)
        except ValueError as error:
            wrong = wrong or error
        except OverflowError:
            wrong = wrong or ValueError("time out of range")
    if wrong:
        raise wrong
    return None


def _moment(found: Match[str], names: Mapping[str, ZoneInfo]) -> datetime:
    parts = found.groupdict()
    within, after = parts.get("zone_within") or "", parts["zone"]
    if within and after.strip():
        raise ValueError("two time zones")
    zone = read_zone(within or after, names, has_time=parts["hour"] is not None)
    day = datetime(_year(parts["year"]), _month(parts), int(parts["day"]), tzinfo=zone)
    return _at(day, parts)


def _year(digits: str) -> int:
    year = int(digits)
    if len(digits) > 2:
        return year
    return year + (2000 if year < _CENTURY else 1900)


def _month(parts: dict[str, str | None]) -> int:
    name = parts.get("month")
    return int(parts["number"] or 0) if name is None else _MONTHS.index(name[:3].lower()) + 1


def _at(day: datetime, parts: dict[str, str | None]) -> datetime:
    """The time of a day; 24:00 is the midnight after it, and a leap second the start of the next minute."""
    hour, minute, second = (int(parts[name] or 0) for name in ("hour", "minute", "second"))
    half = (parts["half"] or parts["half_of_hour"] or "").lower()
    if half:
        if hour > 12:
            raise ValueError(f"{hour} {half}m is no hour")
        hour = hour % 12 + (12 if half == "p" else 0)
    microsecond = int(((parts["fraction"] or "") + "000000")[:6])
    if (hour, minute, second, microsecond) == (24, 0, 0, 0):
        return day + timedelta(days=1)
    leap = second == 60
    return day.replace(hour=hour, minute=minute, second=59 if leap else second, microsecond=microsecond) + timedelta(
        seconds=leap
    )
