"""The fields of an item: what a source's `map` may name, how a value becomes one, and the columns that hold them.

One more field is a line here, a field of `Item`, a column of the tables, and a place in the line that COPY reads.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class Kind(Enum):
    """What a field holds."""

    IDENTIFIER = auto()
    TEXT = auto()
    ADDRESS = auto()
    NUMBER = auto()
    TAGS = auto()
    TIME = auto()


class Field(NamedTuple):
    """A field: the keys of a record that are taken for it where nothing is declared, and what is said of it."""

    name: str
    kind: Kind
    usual: tuple[str, ...]
    meaning: str = "Text"


EXTERNAL_ID = Field(
    "external_id", Kind.IDENTIFIER, ("id", "item_id", "row_id", "guid"), "What identifies the record: text or a number"
)
FIELDS = (
    Field("title", Kind.TEXT, ("title", "name", "product_name")),
    Field("description", Kind.TEXT, ("description", "details", "summary")),
    Field("category", Kind.TEXT, ("category",)),
    Field("url", Kind.ADDRESS, ("link", "url"), "An address, or other text, that a browser does not run"),
    Field("image_url", Kind.ADDRESS, ("image_url", "thumbnail"), "The same, of an image"),
    Field("author", Kind.TEXT, ("author",)),
    Field("amount", Kind.NUMBER, ("price", "cost", "amount"), "A number"),
    Field("quantity", Kind.NUMBER, ("stock", "quantity", "qty"), "A number"),
    Field("rating", Kind.NUMBER, ("rating",), "A number"),
    Field("tags", Kind.TAGS, ("tags", "keywords"), "A list of texts, or one text separated by comma, semicolon or bar"),
    Field("published_at", Kind.TIME, ("created_date", "created_at", "date", "published"), "A time"),
)
TARGETS = (EXTERNAL_ID, *FIELDS)
# What the mapping did not use has a column too.
COLUMNS = (*(field.name for field in FIELDS), "metadata")
