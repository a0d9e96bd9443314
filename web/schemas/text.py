"""Text as PostgreSQL can hold it."""

from __future__ import annotations

from typing import Any

from marshmallow import fields


class Text(fields.String):
    """A string without NUL characters, which no column can hold."""

    default_error_messages = {"nul": "Must not contain NUL characters."}  # noqa: RUF012 -- marshmallow's own name

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if "\x00" in text:
            raise self.make_error("nul")
        return str(text)
