"""Text as PostgreSQL can hold it."""

from __future__ import annotations

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
