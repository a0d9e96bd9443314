"""Cursors: where a list goes on, as an opaque text that cannot be misread."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, TypeVar
from uuid import UUID

import msgspec

from db.queries.item_paths import TITLE_LENGTH, SortKey
from etl.mapping.convert import MAX_NUMBER_EXPONENT, MAX_NUMBER_LENGTH, checked
from web.errors import InvalidRequestError


class ItemCursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The order a list of items was in, and the last item seen; `value` is None where the column is absent."""

    sort_by: SortKey
    descending: bool
    item_id: int
    value: str | None

    def typed_value(self) -> str | datetime | Decimal | None:
        """The value in the type of its column.

        Raises:
            ValueError: it is not one.
        """
        if self.value is None:
            return None
        if "\x00" in self.value:
            raise ValueError("NUL")
        return VALUE_TYPES[self.sort_by](self.value)


def _time(text: str) -> datetime:
    return _in_utc(datetime.fromisoformat(text))


def _in_utc(moment: datetime) -> datetime:
    """PostgreSQL takes no zone as far off as Python does.

    Raises:
        ValueError: there is no such time in UTC, or it has no zone.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("time out of range") from error


def _number(text: str) -> Decimal:
    """A number that an item may have, however small it is."""
    longest = MAX_NUMBER_LENGTH + MAX_NUMBER_EXPONENT
    if len(text) > longest + len("-0."):
        raise ValueError("longer than any number that is kept")
    try:
        found = checked(Decimal(text))
    except InvalidOperation as error:
        raise ValueError("not a number") from error
    # PostgreSQL has no zero with that many decimals.
    if abs(int(found.as_tuple().exponent)) > longest:
        raise ValueError("more decimals than any number that is kept")
    return found


VALUE_TYPES: dict[SortKey, Callable[[str], str | datetime | Decimal | None]] = {
    "created_at": _time,
    "updated_at": _time,
    "published_at": _time,
    "title": lambda text: text[:TITLE_LENGTH],
    "amount": _number,
    "rating": _number,
}


class RunCursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The last run seen."""

    created_at: datetime
    run_id: UUID

    def __post_init__(self) -> None:
        self.created_at = _in_utc(self.created_at)


class AlertCursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The last alert seen."""

    created_at: datetime
    alert_id: UUID

    def __post_init__(self) -> None:
        self.created_at = _in_utc(self.created_at)


class ChangeCursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """How far a mirror has come: the cluster, a mark, its last change, where it began; see `changes.Position`."""

    cluster: Annotated[str, msgspec.Meta(max_length=20)]
    mark: UUID
    xid: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    item_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    begun: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    is_whole: bool = False
    floor: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


Cursor = TypeVar("Cursor", ItemCursor, RunCursor, ChangeCursor, AlertCursor)


def pack(cursor: ItemCursor | RunCursor | ChangeCursor | AlertCursor) -> str:
    """A cursor as text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def unpack(text: str, kind: type[Cursor]) -> Cursor:
    """The cursor in a text.

    Raises:
        InvalidRequestError: it is not one of ours.
    """
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise InvalidRequestError("query", "cursor", "not a cursor that this service gave") from error
