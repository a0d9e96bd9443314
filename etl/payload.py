"""JSON in and out, exactly: numbers keep every digit, keys have one order, and what jsonb cannot hold is refused."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from etl.errors import FormatError, RecordError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# jsonb stores numbers as numeric; far beyond these magnitudes PostgreSQL refuses them, and nobody means them.
MAX_NUMBER_DIGITS = 1000
# Of a content hash: bytes.
DIGEST_SIZE = 16
# Deeper than any real record, and far from what would exhaust a parser's stack.
MAX_DEPTH = 64

_LONG_NUMBER = re.compile(rb"\d{%d}" % MAX_NUMBER_DIGITS)
# As decimals are written; found quicker than a pattern that starts with a digit, or two texts.
_EXPONENT = re.compile(rb"E[+-]\d")

_encode = msgspec.json.Encoder(decimal_format="number", order="sorted").encode


def _decimal(text: str) -> Decimal:
    """A number as jsonb gives it back: `1e2` as 100, `-0.0` as 0.0, and every digit kept.

    One that no decimal can hold becomes NaN, which `encode` refuses.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        return Decimal("NaN")
    if ("e" in text or "E" in text) and abs(number.adjusted()) <= MAX_NUMBER_DIGITS:
        number = Decimal(f"{number:f}")
    return number or abs(number)


_decode = msgspec.json.Decoder(float_hook=_decimal).decode


def decode(body: bytes | str) -> Any:
    """Read a JSON text.

    Raises:
        FormatError: it is not strict JSON, or it is nested too deep.
    """
    try:
        return _decode(body.removeprefix(b"\xef\xbb\xbf") if isinstance(body, bytes) else body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _decode_leniently(body)
    except RecursionError as error:
        raise _not_json(body, error) from error


def _decode_leniently(body: bytes | str) -> Any:
    """Accept half of a surrogate pair and endless integers: they cost one record, not the whole page."""
    try:
        return json.loads(body, parse_float=_decimal, parse_int=_integer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _not_json(body, error) from error


def _integer(text: str) -> int | Decimal:
    """Python refuses to convert thousands of digits; `encode` refuses the decimal."""
    return int(text) if len(text) <= MAX_NUMBER_DIGITS else _decimal(text)


def _not_json(body: bytes | str, error: Exception) -> FormatError:
    return FormatError(f"not valid JSON: {error}; it starts with {body[:80]!r}", code="bad_json")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def weight(text: bytes) -> int:
    """What a JSON text takes in memory once it is decoded, at most, as far as its marks tell: bytes.

    Objects, lists and numbers weigh many times what they are as text; a text may take four bytes for each character.
    """
    return len(text) + 184 * text.count(b"{") + 64 * text.count(b"[") + 112 * text.count(b",") + 60 * text.count(b":")


def encode(payload: Any) -> bytes:
    """The canonical text of a payload: keys sorted, no spaces.

    Raises:
        RecordError: it holds something that jsonb cannot.
    """
    text = write(payload)
    if _may_be_deep(text) and _is_deeper(payload, MAX_DEPTH):
        raise RecordError("", "depth", None, f"nested deeper than {MAX_DEPTH} levels")
    if not _is_suspect(text, len(text)):
        return text
    _refuse_unstorable(payload)
    # Numbers that did not come by way of `decode` may have an exponent.
    return _encode(_decode(text))


def write(payload: Any) -> bytes:
    """The same, without looking for what can be written but not stored.

    Raises:
        RecordError: it cannot even be written.
    """
    try:
        return _encode(payload)
    except (UnicodeEncodeError, RecursionError) as error:
        raise RecordError("", "storable", None, f"cannot be stored as JSON: {error}") from error


def are_harmless(texts: list[bytes]) -> bool:
    """True when none of these texts of objects holds what jsonb cannot; False when that takes a closer look.

    They are looked through as one text, which is several times quicker than one by one.
    """
    together, longest = b"".join(texts), max(map(len, texts), default=0)
    if _is_suspect(together, longest):
        return False
    # Each text opens at least one bracket.
    opened = together.count(b"{") + together.count(b"[")
    return opened < len(texts) + MAX_DEPTH or not any(map(_may_be_deep, texts))


def digest(text: bytes) -> bytes:
    """The content hash of a canonical text."""
    return blake2b(text, digest_size=DIGEST_SIZE).digest()


def without(payload: dict[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    """The payload less the top-level fields that do not make a record `changed`."""
    return {key: value for key, value in payload.items() if key not in ignored}


def _may_be_deep(text: bytes) -> bool:
    return text.count(b"{") + text.count(b"[") > MAX_DEPTH


def _is_suspect(text: bytes, longest: int) -> bool:
    """A cheap look first: only a text with one of these marks can hold a NUL or a number out of range.

    It may be that of several payloads, of which none has more bytes than `longest`.
    """
    # A single character is found many times quicker than a text.
    if (b"\\" in text and b"\\u0000" in text) or b"NaN" in text or _EXPONENT.search(text):
        return True
    return longest > MAX_NUMBER_DIGITS and _LONG_NUMBER.search(text) is not None


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    children = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(child, levels - 1) for child in children)


def _refuse_unstorable(payload: Any) -> None:
    for path, value in _leaves(payload, ""):
        if isinstance(value, str):
            if "\x00" in value:
                raise RecordError(path, "nul", value[:100], "text with a NUL character cannot be stored")
        elif isinstance(value, Decimal):
            if not value.is_finite() or max(abs(value.adjusted()), len(value.as_tuple().digits)) > MAX_NUMBER_DIGITS:
                raise RecordError(path, "number_range", str(value)[:100], "number out of range")
        elif isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 4 * MAX_NUMBER_DIGITS:
            raise RecordError(path, "number_range", None, "number out of range")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield path, key
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(child, path)
    else:
        yield path, value
