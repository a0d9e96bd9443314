"""From a value as a source gave it to the type of a column. Nothing is guessed, and no text is lost.

Each converter takes the value and returns None for an absent one (`None` or empty text). A value that does not fit
raises ValueError with the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

MAX_ID_BYTES = 1000
# numeric(…) without a scale holds far more, but a JSON reader does not.
MAX_NUMBER_EXPONENT = 300
# What JSON may hold as well: digits.
MAX_NUMBER_LENGTH = 1000
# A text of this many characters without an exponent holds no number out of range.
_SHORT = 100
# Epoch numbers above this are milliseconds.
EPOCH_MILLISECONDS = 10**11

# Times of things that are published lie after this year; what is before it is a broken clock or a misread number.
EARLIEST = 1990

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?")
_EPOCH = re.compile(r"\d{9,14}(\.\d+)?")
# As browsers read an address: after leading control characters and spaces, and over line ends and tabs.
_SCRIPT = re.compile(
    r"[\x00-\x20]*(javascript|vbscript|data(?!:image/(png|jpe?g|gif|webp|avif|bmp)[;,])):", re.IGNORECASE
)
_IGNORED_IN_ADDRESSES = {ord(character): None for character in "\t\r\n"}
_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)


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
        return _checked(value)
    if isinstance(value, str):
        return _read_number(value.strip())
    if isinstance(value, int) and not isinstance(value, bool):
        return _checked(Decimal(value))
    if isinstance(value, float):
        # Only a path's arithmetic gives floats; JSON itself is read as decimals.
        return _checked(Decimal(repr(value)))
    raise ValueError("expected a number, found " + _kind(value))


def _read_number(written: str) -> Decimal | None:
    if written.isascii() and written.replace(".", "", 1).isdigit() and len(written) < _SHORT:
        # Digits with at most one point, as most numbers are.
        return Decimal(written)
    if not written:
        return None
    if not _NUMBER.fullmatch(written):
        raise ValueError("expected a number such as 1234.5")
    if len(written) > MAX_NUMBER_LENGTH:
        raise ValueError(f"a number longer than {MAX_NUMBER_LENGTH} characters")
    return _checked(Decimal(written))


def _checked(result: Decimal) -> Decimal:
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


@dataclass(frozen=True)
class Moment:
    """Reads points in time: ISO 8601, RFC 2822, epoch seconds or milliseconds, and the formats a source names."""

    zone: ZoneInfo
    formats: tuple[str, ...] = ()

    def __call__(self, value: Any) -> datetime | None:
        """An aware datetime in UTC; a naive time is one of the source's zone."""
        if value is None or isinstance(value, bool):
            if value is None:
                return None
            raise ValueError("expected a time, found a boolean")
        if isinstance(value, (int, Decimal)):
            return _from_epoch(Decimal(value))
        if not isinstance(value, str):
            raise ValueError("expected a time, found " + _kind(value))  # noqa: TRY004 -- one error for all misfits
        written = value.strip()
        return self._read(written) if written else None

    def _read(self, written: str) -> datetime:
        for pattern in self.formats:
            try:
                return self._settle(datetime.strptime(written, pattern))  # noqa: DTZ007 -- settled below
            except ValueError:
                continue
        # What has a hyphen where a date has one is no epoch number.
        if written[4:5] != "-" and _EPOCH.fullmatch(written):
            return _from_epoch(Decimal(written))
        try:
            return self._settle(datetime.fromisoformat(written))
        except ValueError:
            pass
        try:
            return self._settle(parsedate_to_datetime(written))
        except (ValueError, TypeError, IndexError) as error:
            raise ValueError("expected ISO 8601, epoch seconds or milliseconds, or one of `dates`") from error

    def _settle(self, moment: datetime) -> datetime:
        if moment.tzinfo is UTC:
            return moment
        if moment.tzinfo is None and self.zone.key == "UTC":
            return moment.replace(tzinfo=UTC)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=self.zone)
        try:
            return aware.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("time out of range") from error


def iso_time(epoch: float) -> str:
    """Epoch seconds as ISO 8601 in UTC."""
    return (_EPOCH_START + timedelta(seconds=epoch)).isoformat().replace("+00:00", "Z")


def _from_epoch(value: Decimal) -> datetime:
    try:
        scaled = value / 1000 if abs(value) > EPOCH_MILLISECONDS else value
        return _EPOCH_START + timedelta(microseconds=int(scaled * 1_000_000))
    except (OverflowError, ArithmeticError) as error:
        raise ValueError("time out of range") from error


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", bool: "a boolean"}.get(type(value), "a " + type(value).__name__)
