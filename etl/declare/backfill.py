"""How a source is asked for a range of the past: the same request with the ends of a window in it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from etl.declare.duration import seconds
from etl.declare.model import Duration, Model, Scalar

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

FROM, TO = "{from}", "{to}"
# Formats that are no patterns: seconds and milliseconds since 1970.
_EPOCHS = {"seconds": 1, "milliseconds": 1000}


class Backfill(Model, frozen=True):
    """What is sent instead of, or beside, the parameters and the body of the request, with {from} and {to} in it.

    A window is asked for after the other; each goes from {from} up to, and without, {to}.
    """

    params: dict[str, Scalar] = {}  # noqa: RUF012 -- msgspec copies it
    body: dict[str, Any] | None = None
    window: Duration = "1d"
    format: str | None = None

    def __post_init__(self) -> None:
        if FROM not in str([self.params, self.body]):
            raise ValueError(f"{FROM}, and mostly {TO}, have to stand in `params` or `body`")
        if seconds(self.window) < 1:
            raise ValueError("`window` must be at least 1s")
        if self.format is not None and self.format not in _EPOCHS:
            _check(self.format)

    def filled(self, value: Any, start: datetime, end: datetime, zone: ZoneInfo) -> Any:
        """A value, however deep, with the ends of a window in the places for them."""
        if isinstance(value, str):
            return value.replace(FROM, self._written(start, zone)).replace(TO, self._written(end, zone))
        if isinstance(value, dict):
            return {key: self.filled(child, start, end, zone) for key, child in value.items()}
        return [self.filled(child, start, end, zone) for child in value] if isinstance(value, list) else value

    def _written(self, moment: datetime, zone: ZoneInfo) -> str:
        """As the source writes times: by its format, in its zone; else ISO 8601."""
        if self.format in _EPOCHS:
            return str(int(moment.timestamp() * _EPOCHS[self.format]))
        local = moment.astimezone(zone)
        return local.strftime(self.format) if self.format else local.isoformat().replace("+00:00", "Z")


def _check(pattern: str) -> None:
    """A format has to tell two days apart."""
    first, second = datetime(2001, 2, 3), datetime(2001, 2, 4)  # noqa: DTZ001 -- only tries the pattern
    try:
        differ = first.strftime(pattern) != second.strftime(pattern)
    except ValueError as error:
        raise ValueError(f"`format`: {pattern!r}: {error}") from error
    if not differ:
        raise ValueError(f"`format`: {pattern!r} holds no date; one is written such as %Y-%m-%d")
