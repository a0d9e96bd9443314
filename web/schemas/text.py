"""Values of requests, as PostgreSQL can hold them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from marshmallow import fields


class Text(fields.String):
    """A string without the characters that no column can hold."""

    default_error_messages = {"storable": "Must not contain NUL or surrogate characters."}  # noqa: RUF012 -- marshmallow's own name

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if "\x00" in text or (not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text)):
            raise self.make_error("storable")
        return str(text)


class Moment(fields.Field[datetime]):
    """A point in time; a date alone is its first moment, and without a zone it is UTC."""

    default_error_messages = {  # noqa: RUF012 -- marshmallow's own name
        "moment": "Not a time such as 2026-01-31T12:00:00Z, or a date."
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> datetime:
        del attr, data
        try:
            moment = datetime.fromisoformat(str(value))
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise self.make_error("moment") from error
