"""How a CSV file is written, where that is declared."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from etl.declare.model import Model

Character = Annotated[str, Meta(pattern=r"^[^\r\n]$(?!\n)", description="one character")]
Prefix = Annotated[str, Meta(pattern=r"^[^\r\n]{1,10}$(?!\n)", description="at most 10 characters")]
EncodingName = Annotated[str, Meta(min_length=1)]
Lines = Annotated[int, Meta(ge=0, le=10_000)]


class Dialect(Model, frozen=True):
    """How a CSV file is written.

    Without a `delimiter` it is found out from the first rows: comma, semicolon, tab or bar. Without an `encoding` a
    byte order mark decides, else what the first 64 KiB are; lines that are not in UTF-8 are read as
    `fallback_encoding`.
    """

    delimiter: Character | None = None
    quote: Character | None = '"'
    escape: Character | None = None
    skip_space: bool = False
    encoding: EncodingName | None = None
    fallback_encoding: EncodingName | UnsetType | None = UNSET
    header: bool = True
    skip_lines: Lines | None = None
    skip_footer: Lines = 0
    comment: Prefix | None = None
    ragged: Literal["pad", "reject"] | None = None
    drop_empty_rows: bool = True

    def __post_init__(self) -> None:
        for key in ("encoding", "fallback_encoding"):
            self._check_encoding(key)
        marks = {key: getattr(self, key) for key in ("delimiter", "quote", "escape", "comment")}
        given = {key: mark for key, mark in marks.items() if mark is not None}
        for key, mark in given.items():
            other = next((name for name, value in given.items() if name < key and value == mark), None)
            if other:
                raise ValueError(f"`{other}` and `{key}` are both {mark!r}")
        if self.skip_space and self.delimiter == " ":
            raise ValueError("`skip_space`: the `delimiter` is a space")
        if self.encoding is not None and self.fallback_encoding is not UNSET:
            raise ValueError("`fallback_encoding`: with `encoding` there is no fallback")

    def _check_encoding(self, key: str) -> None:
        name = getattr(self, key)
        try:
            "a".encode(name if isinstance(name, str) else "utf-8")
        except LookupError as error:
            raise ValueError(f"`{key}`: unknown encoding {name!r}") from error
