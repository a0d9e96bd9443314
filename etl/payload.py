"""JSON in and out, exactly: numbers keep every digit, keys have one order, and what jsonb cannot hold is refused."""

from __future__ import annotations

import re
from decimal import Decimal
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from etl.errors import FormatError, RecordError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# jsonb stores numbers as numeric; far beyond these magnitudes PostgreSQL refuses them, and nobody means them.
MAX_NUMBER_DIGITS = 1000

# A cheap look first: only a text with one of these marks can hold a NUL or a number out of range.
_SUSPECT = re.compile(rb"\\u0000|\dE|\d{%d}" % MAX_NUMBER_DIGITS)

_encode = msgspec.json.Encoder(decimal_format="number", order="sorted").encode
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def decode(body: bytes | str) -> Any:
    """Read a JSON text.

    Raises:
        FormatError: it is not strict JSON, or it is nested too deep.
    """
    try:
        return _decode(body.removeprefix(b"\xef\xbb\xbf") if isinstance(body, bytes) else body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        start = body[:80]
        raise FormatError(f"not valid JSON: {error}; it starts with {start!r}", code="bad_json") from error


def encode(payload: Any) -> bytes:
    """The canonical text of a payload: keys sorted, no spaces.

    Raises:
        RecordError: it holds something that jsonb cannot.
    """
    try:
        text = _encode(payload)
    except (UnicodeEncodeError, RecursionError) as error:
        raise RecordError("", "storable", None, f"cannot be stored as JSON: {error}") from error
    if _SUSPECT.search(text):
        _refuse_unstorable(payload)
    return text


def digest(text: bytes) -> bytes:
    """The content hash of a canonical text: 16 bytes."""
    return blake2b(text, digest_size=16).digest()


def without(payload: dict[str, Any], ignored: Collection[str]) -> dict[str, Any]:
    """The payload less the top-level fields that do not make a record `changed`."""
    return {key: value for key, value in payload.items() if key not in ignored}


def _refuse_unstorable(payload: Any) -> None:
    for path, value in _leaves(payload, ""):
        if isinstance(value, str):
            if "\x00" in value:
                raise RecordError(path, "nul", value[:100], "text with a NUL character cannot be stored")
        elif isinstance(value, Decimal):
            if not value.is_finite() or abs(value.adjusted()) > MAX_NUMBER_DIGITS:
                raise RecordError(path, "number_range", str(value)[:100], "number out of range")
        elif isinstance(value, int) and value.bit_length() > 4 * MAX_NUMBER_DIGITS:
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
