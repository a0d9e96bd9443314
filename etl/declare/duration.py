"""Lengths of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

# At most some decades, so that nothing that is made of it overflows.
PATTERN = r"^(\d{1,11}ms|\d{1,8}s|\d{1,7}m|\d{1,5}h|\d{1,4}d)$(?!\n)"

_UNIT = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TEXT = re.compile(r"(\d+)(ms|s|m|h|d)")


def duration(text: str) -> timedelta:
    """Read `500ms`, `30s`, `30m`, `1h` or `90d`."""
    match = _TEXT.fullmatch(text)
    if not match or not re.search(PATTERN, text):
        raise ValueError(f"{text!r} is not a number and a unit, such as 30s, 30m, 1h or 90d")
    return timedelta(**{_UNIT[match[2]]: int(match[1])})


def written(length: timedelta) -> str:
    """A length as people write it, in the largest unit of which it is a whole number; less than 1 ms is left out."""
    return next(
        f"{length // timedelta(**{name: 1})}{unit}"
        for unit, name in reversed(_UNIT.items())
        if unit == "ms" or not length % timedelta(**{name: 1})
    )


def seconds(text: str) -> float:
    """The same as a number of seconds."""
    return duration(text).total_seconds()
