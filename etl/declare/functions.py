"""The functions that a path may call: those of JMESPath, with numbers that keep their digits, and ours.

Ours take texts, numbers (as their text) or null, and give null for null. docs/sources.md has them by example.
"""

from __future__ import annotations

import html
import math
from decimal import Context, Decimal, InvalidOperation
from functools import reduce
from typing import Any
from zoneinfo import ZoneInfo

import nh3
from jmespath import functions

from etl import payload
from etl.times import Moment

# What a function may make of a record: characters. A record is at most 4 MiB, but its texts may be multiplied.
MAX_MADE = 16 * 1024 * 1024

# The digits that a number may have before or after its point.
MAX_DIGITS = 1000
_EXACT = Context(prec=MAX_DIGITS, traps=[])
# Reads formats only: what has no zone stays without.
_ANY_ZONE = Moment(ZoneInfo("UTC"))

# JMESPath knows values by the name of their Python type; ours has one more.
functions.TYPES_MAP["Decimal"] = "number"
functions.REVERSE_TYPES_MAP["number"] = (*functions.REVERSE_TYPES_MAP["number"], "Decimal")


class Functions(functions.Functions):
    """Each `_func_x` is the function x; its signature says how many arguments there are."""

    @functions.signature({"types": []})
    def _func_to_number(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            return None
        if not isinstance(value, str):
            return value
        if len(value) > MAX_DIGITS:
            raise ValueError(f"a number longer than {MAX_DIGITS} characters")
        try:
            number = Decimal(value)
        except InvalidOperation:
            return None
        return number if number.is_finite() else None

    @functions.signature({"types": ["number"]})
    def _func_floor(self, value: Any) -> int:
        found: int = math.floor(_writable(value))
        return found

    @functions.signature({"types": ["number"]})
    def _func_ceil(self, value: Any) -> int:
        found: int = math.ceil(_writable(value))
        return found

    @functions.signature({"types": []}, {"types": ["number"]})
    def _func_scale(self, value: Any, places: Any) -> Decimal | None:
        """A number times so many powers of ten, exactly."""
        number = self._func_to_number(value)
        if number is None:
            return None
        scaled: Decimal = _writable(_writable(_exact(number)).scaleb(int(places), _EXACT))
        return scaled

    @functions.signature({"types": ["array-number"]})
    def _func_sum(self, values: list[Any]) -> Any:
        return reduce(_EXACT.add, map(_writable, map(_exact, values)), Decimal(0))

    @functions.signature({"types": ["array-number"]})
    def _func_avg(self, values: list[Any]) -> Any:
        return _EXACT.divide(self._func_sum(values), Decimal(len(values))) if values else None

    @functions.signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, between: str, texts: list[str]) -> str:
        _check_size(len(between) * len(texts) + sum(map(len, texts)))
        return between.join(texts)

    @functions.signature({"types": []})
    def _func_trim(self, value: Any) -> str | None:
        text = _text(value)
        return None if text is None else text.strip()

    @functions.signature({"types": []})
    def _func_strip_html(self, value: Any) -> str | None:
        """The words of a text of HTML: without tags, and with characters for their names."""
        text = _text(value)
        return None if text is None else html.unescape(nh3.clean(text, tags=set())).strip()

    @functions.signature({"types": []})
    def _func_lower(self, value: Any) -> str | None:
        text = _text(value)
        return None if text is None else text.lower()

    @functions.signature({"types": []})
    def _func_upper(self, value: Any) -> str | None:
        text = _text(value)
        return None if text is None else text.upper()

    @functions.signature({"types": []}, {"types": ["string"]}, {"types": ["string"]})
    def _func_replace(self, value: Any, old: str, new: str) -> str | None:
        text = _text(value)
        if text is None or not old:
            return text
        _check_size(len(text) + text.count(old) * len(new))
        return text.replace(old, new)

    @functions.signature({"types": []}, {"types": ["string"]})
    def _func_split(self, value: Any, between: str) -> list[str] | None:
        text = _text(value)
        if not between:
            raise ValueError("split() needs a text between the parts")
        return None if text is None else text.split(between)

    @functions.signature({"types": []}, {"types": ["string"]})
    def _func_date(self, value: Any, pattern: str) -> str | None:
        """A time in a format of `strptime`, as ISO 8601; it has a zone if the format has one."""
        text = _text(value)
        if text is None or not text.strip():
            return None
        return _ANY_ZONE.by(pattern, text.strip()).isoformat()

    @functions.signature({"types": []}, {"types": []})
    def _func_default(self, value: Any, otherwise: Any) -> Any:
        return otherwise if _is_absent(value) else value

    @functions.signature({"types": [], "variadic": True})
    def _func_coalesce(self, *values: Any) -> Any:
        return next((value for value in values if not _is_absent(value)), None)

    @functions.signature({"types": [], "variadic": True})
    def _func_hash(self, *values: Any) -> str:
        """The same for the same values, and for no others: 32 hexadecimal digits."""
        return payload.digest(payload.encode(list(values))).hex()


def misused(name: str, arguments: int) -> str | None:
    """What is wrong with a call by its name and the number of its arguments, None if nothing."""
    if name not in Functions.FUNCTION_TABLE:
        return f"there is no function {name}()"
    signature = Functions.FUNCTION_TABLE[name]["signature"]
    least, is_open = len(signature), bool(signature and signature[-1].get("variadic"))
    if arguments == least or (is_open and arguments > least):
        return None
    return f"{name}() takes {least}{' or more' if is_open else ''} arguments, not {arguments}"


def _writable(value: Any) -> Any:
    """A number that is not so large that to write it out would take the day."""
    if isinstance(value, Decimal) and not (value.is_finite() and abs(value.adjusted()) <= MAX_DIGITS):
        raise ValueError("number out of range")
    return value


def _is_absent(value: Any) -> bool:
    return value is None or value == ""


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    raise ValueError("expected text, found " + type(value).__name__)


def _check_size(size: int) -> None:
    if size > MAX_MADE:
        raise ValueError(f"the text would have {size} characters, more than {MAX_MADE}")


def _exact(value: float | Decimal) -> Decimal:
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
