"""Rows whose time is over, removed some at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.statement import text

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection


def delete_old(
    connection: Connection, table: str, key: str, since: str, retention: timedelta, limit: int, only: str = "true"
) -> int:
    """Delete some of the rows of a table that are older than `retention`, the oldest first; how many.

    `key` are the columns of its key, `since` is the time that counts, `only` a condition. All of them are ours.
    """
    query = text(f"""
        DELETE FROM {table} WHERE ({key}) IN (
            SELECT {key} FROM {table}
            WHERE {since} < clock_timestamp() - make_interval(secs => :seconds) AND {only}
            ORDER BY {since} LIMIT :limit FOR UPDATE SKIP LOCKED)
    """)
    return connection.execute(query, {"seconds": retention.total_seconds(), "limit": limit}).rowcount
