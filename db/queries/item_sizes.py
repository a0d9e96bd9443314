"""How long items are, as expressions over a row of them: bytes.

Of a text PostgreSQL knows the length without reading it. Of tags and metadata it knows what they take, perhaps packed.
"""

from __future__ import annotations

from etl.item import FIELDS, Kind

TEXTS = tuple(field.name for field in FIELDS if field.kind in {Kind.TEXT, Kind.ADDRESS})
PACKED = (*(field.name for field in FIELDS if field.kind is Kind.TAGS), "metadata")


def _size(unpacked: str) -> str:
    """`unpacked` is how long a value of a column is that is stored packed."""
    return " + ".join(
        [f"coalesce(octet_length({name}), 0)" for name in TEXTS]
        + [
            f"coalesce(CASE WHEN pg_column_compression({name}) IS NULL THEN pg_column_size({name})"
            f" ELSE {unpacked.format(name=name)} END, 0)"
            for name in PACKED
        ]
    )


# For as many items as a page holds, and for thousands: those are not unpacked to be measured.
SIZE = _size("octet_length({name}::text)")
ESTIMATE = _size("8 * pg_column_size({name})")
