"""From a value as a source gave it to the type of a column. Nothing is guessed, and no text is lost.

Each converter takes the value and returns None for an absent one (`None` or empty text). A value that does not fit
raises ValueError with the reason.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

MAX_ID_BYTES = 1000
# numeric(…) without a scale holds far more, but a JSON reader does not.
MAX_NUMBER_EXPONENT = 300
# What JSON may hold as well: digits.
MAX_NUMBER_LENGTH = 1000
# A text of this many characters without an exponent holds no number out of range.
_SHORT = 100
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?")
# What a number may be where it is declared, whatever currency and sign stand beside it.
_WRITTEN_ELSEWHERE = tuple(
    (re.compile(rf"[^\d\s,.']{{0,5}}\s?{form}-?\s?[^\d\s,.']{{0,5}}"), declared)
    for form, declared in (
        (r"\d{1,3}(,\d{2,3})*,\d{3}(\.\d*)?", '{decimal: ".", thousands: ","}'),
        (r"\d{1,3}(\.\d{3})+(,\d*)?", '{decimal: ",", thousands: "."}'),
        (r"\d{1,3}(['\u2019]\d{3})+(\.\d*)?", """{decimal: ".", thousands: "'"}"""),
        (r"\d{1,3}( \d{3})+(\.\d*)?", '{decimal: ".", thousands: " "}'),
        (r"\d{1,3}( \d{3})+(,\d*)?", '{decimal: ",", thousands: " "}'),
        (r"\d*,\d*", '{decimal: ","}'),
        (r"\d+(\.\d*)?", '{decimal: "."}'),
    )
)
# As browsers read an address: after leading control characters and spaces, and over line ends and tabs.
_SCRIPT = re.compile(
    r"[\x00-\x20]*(javascript|vbscript|data(?!:image/(png|jpe?g|gif|webp|avif|bmp)[;,])):", re.IGNORECASE
)
_IGNORED_IN_ADDRESSES = {ord(character): None for character in "\t\r\n"}


def identifier(value: Any) -> str | None:
    """An external id: text or a number, at most 1,000 bytes."""
    found = (text(value) or "").strip()
    # No character takes more than four bytes.
    if len(found) > MAX_ID_BYTES // 4 and len(found.encode()) > MAX_ID_BYTES:
        raise ValueError(f"longer than {MAX_ID_BYTES} bytes")
    return found or None


def text(value: Any) -> str | None:
    """Text as it is; numbers and booleans as their JSON text."""
    if type(value) is str:
        return value or None
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, Decimal)):
        return str(value)
    raise ValueError("expected text, found " + _kind(value))


def address(value: Any) -> str | None:
    """Text as it is, but none that a page which links to it would run as a script."""
    found = text(value)
    if found is not None and _SCRIPT.match(found.translate(_IGNORED_IN_ADDRESSES)):
        raise ValueError("an address that runs a script")
    return found


def number(value: Any) -> Decimal | None:
    """A decimal number with a point, without separators of thousands."""
    if value is None:
        return None
    if isinstance(value, Decimal):
        return checked(value)
    if isinstance(value, str):
        return _read_number(value.strip())
    if isinstance(value, int) and not isinstance(value, bool):
        return checked(Decimal(value))
    if isinstance(value, float):
        # Only a path's arithmetic gives floats; JSON itself is read as decimals.
        return checked(Decimal(repr(value)))
    raise ValueError("expected a number, found " + _kind(value))


def _read_number(written: str) -> Decimal | None:
    if written.isascii() and written.replace(".", "", 1).isdigit() and len(written) < _SHORT:
        # Digits with at most one point, as most numbers are.
        return Decimal(written)
    if not written:
        return None
    if not _NUMBER.fullmatch(written):
        raise ValueError(_advice(written))
    if len(written) > MAX_NUMBER_LENGTH:
        raise ValueError(f"a number longer than {MAX_NUMBER_LENGTH} characters")
    return checked(Decimal(written))


def _advice(written: str) -> str:
    """What to declare for a text that is read as a number only where its source says so."""
    shown = re.sub(r"\s", " ", written)
    fits = [declared for form, declared in _WRITTEN_ELSEWHERE if form.fullmatch(shown)]
    if not fits:
        return "expected a number such as 1234.5, or a text in `nulls` if it means that there is none"
    return f"expected a number such as 1234.5; declare {' or '.join(f'`numbers: {one}`' for one in fits)}"


def checked(result: Decimal) -> Decimal:
    """A number, if it is one that a reader of JSON can hold; ValueError if not."""
    if not result.is_finite():
        raise ValueError("expected a finite number")
    if result and abs(result.adjusted()) > MAX_NUMBER_EXPONENT:
        raise ValueError("number out of range")
    return result


def tags(value: Any) -> list[str] | None:
    """A list of texts, or one text separated by comma, semicolon or bar."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        parts = value.replace(";", ",").replace("|", ",").split(",")
        return [word for part in parts if (word := part.strip())] or None
    if isinstance(value, list):
        return [word for word in map(text, value) if word is not None] or None
    raise ValueError("expected a list of texts, found " + _kind(value))


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", bool: "a boolean"}.get(type(value), "a " + type(value).__name__)
