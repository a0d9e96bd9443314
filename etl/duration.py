"""Lengths of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

PATTERN = r"^\d+(ms|s|m|h|d)$"

_UNIT = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_TEXT = re.compile(r"(\d+)(ms|s|m|h|d)")


def duration(text: str) -> timedelta:
    """Read `500ms`, `30s`, `30m`, `1h` or `90d`."""
    match = _TEXT.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a number and a unit, such as 30s, 30m, 1h or 90d")
    return timedelta(**{_UNIT[match[2]]: int(match[1])})


def seconds(text: str) -> float:
    """The same as a number of seconds."""
    return duration(text).total_seconds()
