"""Turns at a run: batches load side by side, and its end comes between two of them, not after the last.

PostgreSQL lets a new sharer of a row pass those who wait for it alone, for ever if loads overlap. Advisory locks stand
in line. Each statement takes its place in it before it locks the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.statement import text

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

_SHARED = text("""
    SELECT r.status, turn FROM etl_runs r,
        (SELECT pg_advisory_xact_lock_shared(hashtextextended(:run_id, 0)) OFFSET 0) turn
    WHERE r.run_id = CAST(:run_id AS uuid) AND r.status = 'running' FOR KEY SHARE OF r
""")
_ALONE = text("""
    SELECT r.status, turn FROM etl_runs r,
        (SELECT pg_advisory_xact_lock(hashtextextended(:run_id, 0)) OFFSET 0) turn
    WHERE r.run_id = CAST(:run_id AS uuid) FOR UPDATE OF r
""")


def lock_run_shared(connection: Connection, run_id: UUID) -> bool:
    """Keep a run from ending until the transaction is over; False when it is not running."""
    return connection.execute(_SHARED, {"run_id": str(run_id)}).first() is not None


def lock_run(connection: Connection, run_id: UUID) -> str | None:
    """Have a run alone until the transaction is over: its status, None when there is no such run."""
    row = connection.execute(_ALONE, {"run_id": str(run_id)}).first()
    return None if row is None else row.status
