"""Times that are written by digits alone: epochs, unless they also read as a date."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

# Seconds from 1973 to 2099, and milliseconds from 1973 to 2099.
_SECONDS = (10**8, 41 * 10**8)
_MILLISECONDS = (10**11, 41 * 10**11)
_START = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS = range(1900, 2101)

# Those of a date, by how many digits it has.
_FORMATS = {4: "%Y", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_DIGITS = re.compile(r"\d{1,20}(?:\.\d{1,20})?", re.ASCII)


def are_digits(written: str) -> bool:
    """Whether a text is a number of seconds or milliseconds, or may be a date without separators."""
    return _DIGITS.fullmatch(written) is not None


def read_digits(written: str) -> datetime:
    """Seconds or milliseconds since 1970 as a time in UTC.

    Raises ValueError for what is none, and for what may as well be a date.
    """
    epoch = from_epoch(Decimal(written))
    pattern = format_of_date(written)
    if pattern is None and epoch is not None:
        return epoch
    if pattern is None:
        raise ValueError(
            "digits are a time only as seconds from 100000000 to 4100000000 since 1970, or as milliseconds; "
            "write their format in `dates`, or the value in `nulls` if it means that there is none"
        )
    date = f"a date ({pattern})"
    other = f"seconds or milliseconds since 1970 ({epoch:%Y-%m-%d})" if epoch else "a number"
    raise ValueError(f"may be {date} or {other}; if it is a date, declare `dates: [{pattern!r}]`".replace("'", '"'))


def from_epoch(value: Decimal) -> datetime | None:
    """Seconds or milliseconds since 1970, None for what lies out of their range."""
    if _SECONDS[0] <= value <= _SECONDS[1]:
        return _START + timedelta(microseconds=int(value * 1_000_000))
    if _MILLISECONDS[0] <= value <= _MILLISECONDS[1]:
        return _START + timedelta(microseconds=int(value * 1000))
    return None


def format_of_date(written: str) -> str | None:
    """The format by which digits read as a date between 1900 and 2100, None if they do not."""
    pattern = _FORMATS.get(len(written))
    if pattern is None or "." in written or int(written[:4]) not in _YEARS:
        return None
    try:
        datetime.strptime(written, pattern)  # noqa: DTZ007 -- only tries the format
    except ValueError:
        return None
    return pattern
