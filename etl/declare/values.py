"""How the values of a source are written: what decides what a text means."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from etl.declare.model import Model

Decimal = Annotated[str, Meta(pattern=r"^[^0-9A-Za-z+()%\s-]$(?!\n)", description="one character: a comma, a point")]
Thousands = Annotated[
    str,
    Meta(pattern=r"^[^0-9A-Za-z+()%-]$(?!\n)", description="one character: a point, a comma, a space, an apostrophe"),
]
Abbreviation = Annotated[str, Meta(pattern=r"^[A-Za-z]{1,6}$(?!\n)")]
Place = Annotated[
    str,
    Meta(pattern=r"^(UTC|[A-Za-z_]+(/[A-Za-z0-9_+-]+){1,2})$(?!\n)", description="a time zone such as Asia/Kolkata"),
]


class Numbers(Model, frozen=True):
    """How numbers are written in texts; where it is declared, signs, currencies and parentheses are read as well."""

    decimal: Decimal = "."
    thousands: Thousands | None = None
    percent: Literal["number", "fraction"] | None = None

    def __post_init__(self) -> None:
        if self.decimal == self.thousands:
            raise ValueError("`decimal` and `thousands` are the same")
