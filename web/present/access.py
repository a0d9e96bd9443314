"""Keys and the record of writes as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Row

    from etl.access.keys import NewKey


def present_key(row: Row[Any], new: NewKey | None = None) -> dict[str, Any]:
    """A key; the text of one that was just made, and never again."""
    return row._asdict() | ({"key": new.text} if new else {})


def present_keys(rows: list[Row[Any]], limit: int) -> dict[str, Any]:
    """A page of keys; one row more than fits says that another page follows."""
    shown = rows[:limit]
    return {"keys": list(map(present_key, shown)), "next_cursor": shown[-1].key_id if len(rows) > limit else None}


def present_writes(rows: list[Row[Any]], limit: int) -> dict[str, Any]:
    """A page of writes; one row more than fits says that another page follows."""
    shown = rows[:limit]
    entries = [row._asdict() for row in shown]
    return {"entries": entries, "next_cursor": shown[-1].audit_id if len(rows) > limit else None}
